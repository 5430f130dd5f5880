"""Order, limits and the reasons for waiting, seen from outside: real agents run real programs on real servers."""

from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import pytest

from chiffon import ApiError
from chiffon.models import Blocker
from tests.eventually import eventually
from tests.integration.system.deployment import System

pytestmark = pytest.mark.xdist_group("system/waiting")

# Each program notes its number and the moment, in nanoseconds, at its start and at its end; lines this short are
# appended whole.
NOTE = 'echo "{name} start $(date +%s%N)" >> {path}; {first}sleep {seconds}; echo "{name} end $(date +%s%N)" >> {path}'

# Three that may run side by side wait for one another, so that they do, however slow the machine.
THREE = "until [ $(grep -c start {path}) -ge 3 ]; do sleep 0.02; done; "


class Ran(NamedTuple):
    name: str
    start: int
    end: int


def script(path: Path, name: str, seconds: float) -> dict[str, str]:
    return {"script": NOTE.format(name=name, path=path, first="", seconds=seconds)}


def script_of_three(path: Path, name: str) -> dict[str, str]:
    return {"script": NOTE.format(name=name, path=path, first=THREE.format(path=path), seconds=0.02)}


def read(path: Path) -> list[Ran]:
    """Return what ran, by its start."""
    moments: dict[str, dict[str, int]] = defaultdict(dict)
    for line in path.read_text().splitlines():
        name, what, at = line.split()
        assert what not in moments[name], f"{name} ran twice"
        moments[name][what] = int(at)
    return sorted((Ran(name, at["start"], at["end"]) for name, at in moments.items()), key=lambda ran: ran.start)


def most_at_once(ran: list[Ran]) -> int:
    return max(sum(other.start <= one.start < other.end for other in ran) for one in ran)


async def blockers(system: System, task_id: UUID) -> dict[str, Blocker]:
    return {blocker.kind: blocker for blocker in (await system.client.why(task_id)).blockers}


async def test_twenty_tasks_of_one_ordering_key_run_in_order_and_without_overlap(
    system: System, tmp_path: Path
) -> None:
    await system.start_agent(slots=4)
    await system.start_agent(slots=4)
    path, ids = tmp_path / "moments", [uuid4() for _ in range(20)]
    work = [
        {
            "task_id": str(task_id),
            "work_type": "shell_script",
            "parameters": script(path, f"{number:02}", 0.02),
            "ordering_key": "web-1",
            "priority": 1 + number % 5,
        }
        for number, task_id in enumerate(ids)
    ]

    await system.client.dispatch_batch(work[:15])
    await system.client.dispatch_batch(work[15:])
    tasks = await system.finished(*ids)

    ran = read(path)
    assert {task.status for task in tasks} == {"completed"}
    assert [one.name for one in ran] == [f"{number:02}" for number in range(20)]
    assert most_at_once(ran) == 1


async def test_three_ordering_keys_run_side_by_side_each_in_order(system: System, tmp_path: Path) -> None:
    await system.start_agent(slots=4)
    await system.start_agent(slots=4)
    path, ids = tmp_path / "moments", [uuid4() for _ in range(12)]

    for number, task_id in enumerate(ids):
        await system.client.dispatch(
            "shell_script",
            script_of_three(path, f"{number % 3}/{number:02}"),
            task_id=task_id,
            ordering_key=f"web-{number % 3}",
        )
    await system.finished(*ids)

    ran = read(path)
    assert most_at_once(ran) == 3
    for key in "012":
        of_key = [one for one in ran if one.name.startswith(key)]
        assert [one.name for one in of_key] == sorted(one.name for one in of_key)
        assert most_at_once(of_key) == 1


async def test_no_more_of_a_concurrency_key_run_at_a_time_than_its_limit(system: System, tmp_path: Path) -> None:
    await system.start_agent(slots=4)
    await system.start_agent(slots=4)
    path, ids = tmp_path / "moments", [uuid4() for _ in range(12)]

    for number, task_id in enumerate(ids):
        await system.client.dispatch(
            "shell_script",
            script_of_three(path, str(number)),
            task_id=task_id,
            concurrency_key="pulls",
            concurrency_limit=3,
        )
    await system.finished(*ids)

    assert most_at_once(read(path)) == 3


async def test_after_a_cancel_the_next_of_the_key_starts_when_the_program_before_it_has_stopped(
    system: System, tmp_path: Path
) -> None:
    await system.start_agent(slots=4)
    path, first, second = tmp_path / "moments", uuid4(), uuid4()
    stubborn = f"trap 'sleep 0.7; echo first end $(date +%s%N) >> {path}; exit 1' TERM;"
    stubborn += f" echo 'first start '$(date +%s%N) >> {path}; while true; do sleep 0.05; done"
    await system.client.dispatch("shell_script", {"script": stubborn}, task_id=first, ordering_key="web-1")
    await system.client.dispatch("shell_script", script(path, "second", 0), task_id=second, ordering_key="web-1")
    await eventually(path.exists)

    await system.client.cancel(first)
    assert (await system.client.status(first)).status == "cancelled"
    [told] = (await system.client.why(second)).blockers
    await system.finished(second)

    assert told.task_ids == [first]
    assert [one.name for one in read(path)] == ["first", "second"]
    assert most_at_once(read(path)) == 1


async def test_a_task_that_nobody_takes_in_time_is_cancelled_and_says_why(system: System) -> None:
    task_id = uuid4()

    await system.client.dispatch("echo", task_id=task_id, expires_after=timedelta(seconds=0.5))
    assert {"no_agent", "expires"} <= (await blockers(system, task_id)).keys()
    [task] = await system.finished(task_id)

    assert (task.status, task.error_code) == ("cancelled", 5001)
    assert task.error_message == "expired: waited longer than 0.5 s"
    [ended] = (await system.client.why(task_id)).blockers
    assert ended.message.endswith("expired: waited longer than 0.5 s.")


async def test_why_follows_a_task_from_nobody_there_to_its_end(system: System, tmp_path: Path) -> None:
    go, busy, waiting = tmp_path / "go", uuid4(), uuid4()
    hold = {"script": f"until [ -e {go} ]; do sleep 0.05; done"}
    await system.client.dispatch("shell_script", hold, task_id=busy)
    assert list(await blockers(system, busy)) == ["no_agent", "queued"]

    await system.start_agent(slots=1)
    await eventually(lambda: _is(system, busy, "running"))
    await system.client.dispatch("echo", task_id=waiting)
    told = await blockers(system, waiting)
    go.touch()
    await system.finished(busy, waiting)

    assert "runs 1 of 1" in told["slots_busy"].message
    assert list(await blockers(system, waiting)) == ["ended"]


async def _is(system: System, task_id: UUID, kind: str) -> bool:
    return kind in await blockers(system, task_id)


async def test_a_concurrency_key_without_a_limit_is_refused_with_the_field(system: System) -> None:
    with pytest.raises(ApiError) as caught:
        await system.client.dispatch("echo", concurrency_key="pulls")
    [item] = await system.client.dispatch_batch([{"work_type": "echo", "concurrency_limit": 2}])

    assert (caught.value.status, caught.value.error_code) == (422, 1002)
    assert caught.value.problems[0]["field"] == "concurrency_limit"
    assert item.error is not None
    assert item.error.errors[0].field == "concurrency_limit"
