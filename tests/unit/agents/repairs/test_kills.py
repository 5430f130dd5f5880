"""SIGKILL at every point of a repair: what comes after it finds the service verified, or brings it back.

The short form tries some of the points; with `CHIFFON_EXAMPLES` it is all of them.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.processes.keepers import Keepers
from agents.repairs.state import End
from tests.fuzz.bounds import SEED, some
from tests.unit.agents.repairs.conftest import MakeWorkshop
from tests.unit.agents.repairs.workshop import SECOND, Seen, Told, Workshop

pytestmark = pytest.mark.timeout(300)

REPOSITORY = Path(__file__).parents[4]
# Several files of each kind, and a service that does not work: the repair comes as far as it can, and back.
BREAKS = "echo crashes > app.txt; rm deep/notes.txt; mkdir deep/er; echo x > deep/er/new"
WORKS = f"echo {SECOND.strip()} > app.txt; rm deep/notes.txt; mkdir deep/er; echo x > deep/er/new"
# These calls change something; a kill at any other is the same as one right after the state was written before it.
CHANGING = {"build": ("inside", "after"), "up": ("inside", "after"), "tag": ("after",)}
# So many points the short form tries.
POINTS_OF_A_REPAIR, POINTS_OF_A_ROLLBACK = 8, 4
Point = list[Any]


class Killer:
    """Repairs in processes that are killed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, workshop: Workshop, script: str, at: Point | None, *, settles: bool = False) -> dict[str, Any]:
        patch = {"commands": [["/bin/sh", "-c", script]]}
        asked = {
            "folder": str(workshop.folder),
            "parameters": workshop.parameters(patch=patch),
            "at": at,
            "settles": settles,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    argv = [sys.executable, "-m", "tests.unit.agents.repairs.killed"]
    places = ":".join([str(REPOSITORY / "src"), str(REPOSITORY)])
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={"PYTHONPATH": places, "PATH": "/usr/bin:/bin"},
    ) as process:
        yield Killer(process)
        assert process.stdin is not None
        process.stdin.close()


def points_of(answer: dict[str, Any]) -> list[Point]:
    """Return the points of a repair that was not killed: between all that it does, and inside what lasts."""
    counts, calls = answer["counts"], [json.loads(line) for line in answer["calls"]]
    points: list[Point] = [["write", 0, "before"]]
    points += [["write", number, "after"] for number in range(counts["write"])]
    points += [["file", number] for number in range(counts.get("file", 0))]
    for number, call in enumerate(calls):
        if changing := next((word for word in CHANGING if word in call), None):
            points += [["call", number, moment] for moment in CHANGING[changing]]
    return points


async def settled(workshop: Workshop, keepers: Keepers) -> Told:
    told = Told()
    await workshop.settler(keepers, told).run_once()
    return told


def is_as_repaired(workshop: Workshop, before: Seen) -> bool:
    now = workshop.seen()
    return (
        now.files["app.txt"][0] == SECOND
        and "deep/er/new" in now.files
        and "deep/notes.txt" not in now.files
        and now.services["web"][0] != before.services["web"][0]
        and now.database == before.database
    )


async def test_a_repair_that_fails_is_rolled_back_wherever_it_is_killed(
    tmp_path: Path,
    make_workshop: MakeWorkshop,
    killer: Killer,
    keepers: Keepers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = killer.run(make_workshop(tmp_path / "whole"), BREAKS, None)
    points = points_of(whole)
    assert whole["code"] == 0
    assert len(points) > 30

    print(f"CHIFFON_SEED={SEED}")
    for number, point in enumerate(some(points, POINTS_OF_A_REPAIR), start=1):
        workshop = make_workshop(tmp_path / str(number))
        monkeypatch.setenv("PATH", workshop.environment["PATH"])
        before = workshop.seen()
        killed = killer.run(workshop, BREAKS, point)
        told = await settled(workshop, keepers)

        assert killed["code"] == -signal.SIGKILL, (point, killed)
        assert workshop.seen() == before, point
        assert workshop.worktrees() == [], point
        if (workshop.store.folder / "shop.web.json").exists():
            assert workshop.unit.end in (End.ROLLED_BACK, End.UNTOUCHED), point
            assert told.reports[-1].name == "rollback", point
            assert told.reports[-1].status in ("succeeded", "skipped"), (point, told.reports[-1])


async def test_a_repair_that_works_is_verified_or_rolled_back_when_it_is_killed_at_its_end(
    tmp_path: Path, make_workshop: MakeWorkshop, killer: Killer, keepers: Keepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = killer.run(make_workshop(tmp_path / "whole"), WORKS, None)
    last_writes: list[Point] = [["write", number, "after"] for number in range(whole["counts"]["write"])]
    ends = set[End]()

    for number, point in enumerate(last_writes[-4:], start=1):
        workshop = make_workshop(tmp_path / str(number))
        monkeypatch.setenv("PATH", workshop.environment["PATH"])
        before = workshop.seen()
        killed = killer.run(workshop, WORKS, point)
        told = await settled(workshop, keepers)
        end = workshop.unit.end

        assert killed["code"] == -signal.SIGKILL, point
        assert end is not None, point
        ends.add(end)
        if end is End.VERIFIED:
            assert is_as_repaired(workshop, before), point
            assert told.steps["rollback"] == "skipped", point
            assert workshop.worktrees() == [], point
        else:
            assert (end, workshop.seen()) == (End.ROLLED_BACK, before), point

    assert ends == {End.VERIFIED, End.ROLLED_BACK}


async def test_a_rollback_that_is_killed_too_is_finished_by_the_next_process(
    tmp_path: Path, make_workshop: MakeWorkshop, killer: Killer, keepers: Keepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = json.dumps
    whole = killer.run(make_workshop(tmp_path / "whole"), BREAKS, None)
    ups = [number for number, line in enumerate(whole["calls"]) if call("up") in line]
    first_up: Point = ["call", ups[0], "after"]
    trial = make_workshop(tmp_path / "trial")
    killer.run(trial, BREAKS, first_up)
    points = points_of(killer.run(trial, BREAKS, None, settles=True))
    assert len(points) > 6

    print(f"CHIFFON_SEED={SEED}")
    for number, point in enumerate(some(points, POINTS_OF_A_ROLLBACK), start=2):
        workshop = make_workshop(tmp_path / str(number))
        monkeypatch.setenv("PATH", workshop.environment["PATH"])
        before = workshop.seen()
        killer.run(workshop, BREAKS, first_up)
        again = killer.run(workshop, BREAKS, point, settles=True)
        told = await settled(workshop, keepers)

        assert again["code"] == -signal.SIGKILL, (point, again)
        assert workshop.unit.end is End.ROLLED_BACK, point
        assert workshop.seen() == before, point
        assert told.reports[-1].status == "succeeded", point
