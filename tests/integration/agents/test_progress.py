"""A program says where it stands in a file, whatever it does to that file, and the orchestrator is told."""

import os
import shutil
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from agents.output import progress_file
from common.messages import ResultStatus
from tests.eventually import eventually
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator
from tests.services import packages

SECRET = "a-secret-of-the-host-9f2c"


def reports(orchestrator: ScriptedOrchestrator, task: UUID) -> list[str]:
    return [status.progress for status in orchestrator.statuses if status.task_id == task and status.progress]


async def reported(orchestrator: ScriptedOrchestrator, task: UUID, text: str) -> None:
    await eventually(lambda: text in reports(orchestrator, task))


def until(gate: Path) -> str:
    return f"while [ ! -e {gate} ]; do sleep 0.1; done"


@pytest.mark.parametrize(
    "write",
    [
        'echo "{}" > "$CHIFFON_PROGRESS"',
        'echo "{}" >> "$CHIFFON_PROGRESS"',
        'printf "{}" > "$CHIFFON_PROGRESS"',
        'echo "{}" > new; mv new "$CHIFFON_PROGRESS"',
        '[ -e /proc/self/fd/7 ] || exec 7>> "$CHIFFON_PROGRESS"; echo "{}" >&7',
    ],
)
async def test_what_a_program_writes_is_reported_while_it_runs(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path, write: str
) -> None:
    await start_agent()
    halfway, end = tmp_path / "halfway", tmp_path / "end"
    steps = [write.format("40 copying files"), until(halfway), write.format("80 nearly"), until(end)]
    task = await orchestrator.shell("\n".join(steps))

    await reported(orchestrator, task, "40% copying files")
    halfway.touch()
    await reported(orchestrator, task, "80% nearly")
    assert orchestrator.result(task) is None
    end.touch()

    assert (await orchestrator.ended(task)).status is ResultStatus.COMPLETED
    assert reports(orchestrator, task) == ["40% copying files", "80% nearly"]


async def test_a_report_is_seen_when_it_is_written_and_not_by_looking_again_and_again(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_file, "FIRST_LOOK", timedelta(0))
    monkeypatch.setattr(progress_file, "LOOK_EVERY", timedelta(hours=1))
    await start_agent()
    gate = tmp_path / "gate"
    task = await orchestrator.shell(f"{until(gate)}; echo now > $CHIFFON_PROGRESS; {until(tmp_path / 'end')}")
    await eventually(lambda: orchestrator.grants)
    gate.touch()

    await reported(orchestrator, task, "now")

    (tmp_path / "end").touch()
    await orchestrator.ended(task)


async def test_the_last_report_comes_before_the_result(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()
    tasks = [
        await orchestrator.shell(f"echo {n} > $CHIFFON_PROGRESS; echo 100 of {n} > $CHIFFON_PROGRESS") for n in "1234"
    ]

    for number, task in zip("1234", tasks, strict=True):
        await orchestrator.ended(task)
        assert reports(orchestrator, task)[-1] == f"100% of {number}"


async def test_work_that_says_nothing_is_not_reported_on(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()
    task = await orchestrator.shell("true")

    await orchestrator.ended(task)

    assert orchestrator.statuses == []


# A file that is emptied again and again is empty most of the time, so that only its end is sure to be seen.
@pytest.mark.parametrize(("mode", "at_least"), [("w", 1), ("a", 2)])
async def test_a_flood_of_reports_is_thinned_out_and_holds_up_neither_the_program_nor_others(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, mode: str, at_least: int
) -> None:
    await start_agent(slots=2)
    flood = f"""{sys.executable} -I -S - <<'EOF'
import os, time
until, number = time.monotonic() + 2.5, 0
while time.monotonic() < until:
    number += 1
    with open(os.environ["CHIFFON_PROGRESS"], "{mode}") as file:
        file.write(f"{{number % 100}} number {{number}}\\n")
    time.sleep(0.002)
print(number)
EOF"""
    task = await orchestrator.shell(flood)
    other = await orchestrator.shell("sleep 0.5; echo 50 quiet > $CHIFFON_PROGRESS; sleep 0.5")

    await orchestrator.ended(other)
    ran = (await orchestrator.ended(task)).duration_ms / 1000

    written = int(orchestrator.output(task))
    assert written > 100
    assert reports(orchestrator, other) == ["50% quiet"]
    # One at once, one in each second that followed, and the last.
    assert at_least <= len(reports(orchestrator, task)) <= ran + 2
    assert reports(orchestrator, task)[-1] == f"{written % 100}% number {written}"


@pytest.mark.parametrize(
    "litter",
    [
        'head -c 3000000 /dev/urandom | tr "\\n\\r" "xx" >> "$CHIFFON_PROGRESS"',
        'truncate -s 50G "$CHIFFON_PROGRESS"',
        'head -c 50000000 /dev/zero >> "$CHIFFON_PROGRESS"',
        'yes "" | head -c 1000000 >> "$CHIFFON_PROGRESS"',
    ],
)
async def test_gigabytes_and_garbage_are_survived(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path, litter: str
) -> None:
    await start_agent()
    gate = tmp_path / "gate"
    task = await orchestrator.shell(
        f'{litter}; echo >> "$CHIFFON_PROGRESS"; echo "50 alive" >> "$CHIFFON_PROGRESS"; {until(gate)}'
    )

    await reported(orchestrator, task, "50% alive")
    gate.touch()

    assert (await orchestrator.ended(task)).status is ResultStatus.COMPLETED
    assert reports(orchestrator, task)[-1] == "50% alive"


async def test_a_line_that_is_written_over_and_over_is_read_as_a_terminal_shows_it(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()
    task = await orchestrator.shell(
        'for i in $(seq 30000); do printf "%d%% step\\r" $((i / 300)); done > "$CHIFFON_PROGRESS"'
    )

    await orchestrator.ended(task)

    assert reports(orchestrator, task)[-1] == "100% step"


CHANGES = [
    'rm "$CHIFFON_PROGRESS"',
    'ln -sf {secret} "$CHIFFON_PROGRESS"',
    'ln -f {secret} "$CHIFFON_PROGRESS"',
    'rm "$CHIFFON_PROGRESS"; mkfifo "$CHIFFON_PROGRESS"',
    'rm "$CHIFFON_PROGRESS"; mkdir "$CHIFFON_PROGRESS"',
    'rm -r "$(dirname "$CHIFFON_PROGRESS")"',
    'rm -r "$(dirname "$CHIFFON_PROGRESS")"; ln -s {folder} "$(dirname "$CHIFFON_PROGRESS")"',
    'rm -r "$(dirname "$CHIFFON_PROGRESS")"; echo x > "$(dirname "$CHIFFON_PROGRESS")"',
    'chmod 0 "$(dirname "$CHIFFON_PROGRESS")"',
    'cd /; mv "$(dirname "$(dirname "$CHIFFON_PROGRESS")")" {folder}/moved',
]


async def test_a_file_that_is_replaced_by_something_else_says_nothing_and_does_no_harm(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent(slots=len(CHANGES) + 1)
    begun = 'echo "10 begun" > "$CHIFFON_PROGRESS"'
    tasks = {}
    for number, change in enumerate(CHANGES):
        folder = tmp_path / str(number)
        folder.mkdir()
        secret = folder / "report"
        secret.write_text(SECRET)
        script = f"{begun}\n{change.format(secret=secret, folder=folder)}\nsleep 1.2; echo end"
        tasks[change] = await orchestrator.shell(script)
    other = await orchestrator.shell('sleep 0.3; echo "20 other" > "$CHIFFON_PROGRESS"')

    for change, task in tasks.items():
        result = await orchestrator.ended(task)

        assert (result.status, orchestrator.output(task)) == (ResultStatus.COMPLETED, "end\n"), change
        assert set(reports(orchestrator, task)) <= {"10% begun"}, change
    await orchestrator.ended(other)
    assert reports(orchestrator, other) == ["20% other"]


async def test_secrets_of_the_work_are_hidden_in_its_reports(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    await start_agent(secrets={"key": {"file": str(tmp_path / "secret")}})
    task = await orchestrator.shell('echo "5 with $KEY at hand" > "$CHIFFON_PROGRESS"', env={"KEY": {"secret": "key"}})

    await orchestrator.ended(task)

    assert reports(orchestrator, task) == ["5% with [redacted] at hand"]


async def test_a_program_that_says_nothing_costs_no_look(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    opened = progress_file._opened

    def counted(folder: int) -> int | None:
        nonlocal looks
        looks += 1
        return opened(folder)

    monkeypatch.setattr(progress_file, "_opened", counted)
    await start_agent()
    task = await orchestrator.shell("for i in 1 2 3 4 5 6; do echo $i > file$i; sleep 0.4; done")

    await orchestrator.ended(task)

    assert looks == 2  # half a second after it began, and when it had ended


async def test_without_inotify_the_file_is_looked_at_again_and_again(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, **_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("asyncinotify.Inotify.__init__", refuse)
    await start_agent()
    gate = tmp_path / "gate"
    task = await orchestrator.shell(
        f"sleep 0.1; echo 40 copying > $CHIFFON_PROGRESS; {until(gate)}; echo 100 > $CHIFFON_PROGRESS"
    )

    await reported(orchestrator, task, "40% copying")
    gate.touch()

    await orchestrator.ended(task)
    assert reports(orchestrator, task) == ["40% copying", "100%"]


@pytest.fixture
async def open_place() -> AsyncIterator[Path]:
    """A directory that every user may pass through, which pytest's own is not."""
    place = Path("/var/tmp") / f"chiffon-test-{uuid4()}"
    place.mkdir()
    yield place
    shutil.rmtree(place)


WALLS: dict[str, dict[str, Any]] = {
    **({"run_as": {"run_as": "nobody"}} if os.geteuid() == 0 else {}),
    **(
        {"sandbox": {"confinement": {"sandbox": True}}}
        if packages.program("bwrap") or packages.install("bubblewrap")
        else {}
    ),
    "limits": {"confinement": {"max_open_files": 64, "max_file_bytes": 1_000_000}},
}


@pytest.mark.parametrize("walls", WALLS)
async def test_a_program_that_is_shut_in_is_heard_as_any_other(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, open_place: Path, walls: str
) -> None:
    await start_agent(state_dir=open_place / "agent", **WALLS[walls])
    # Behind some walls a program sees nothing but its own workspace.
    task = await orchestrator.shell(f'echo "40 shut in" > "$CHIFFON_PROGRESS"; pwd; {until(Path("gate"))}')
    workspace = open_place / "agent" / "work" / f"{task}-1"

    await reported(orchestrator, task, "40% shut in")
    assert orchestrator.result(task) is None
    (workspace / "gate").touch()

    assert (await orchestrator.ended(task)).status is ResultStatus.COMPLETED
    assert not workspace.exists()
