"""What an earlier life left running is killed, and nobody else."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from agents.disk.journal import ProcessStarted, Started, Unended
from agents.processes import table
from agents.processes.life import host_boot_id
from agents.processes.orphans import end_orphans
from agents.processes.table import look_at
from tests.eventually import eventually
from tests.unit.agents.test_process import is_gone

Start = Callable[..., Coroutine[Any, Any, asyncio.subprocess.Process]]


def make_started(*, boot: str | None = None) -> Started:
    return Started(
        task_id=uuid4(),
        attempt=1,
        work_type="shell_script",
        trace_id=uuid4(),
        request_id=uuid4(),
        host_boot_id=host_boot_id() if boot is None else boot,
        agent_pid=1,
    )


def noted(started: Started, pid: int, *, ticks_off: int = 0) -> Unended:
    seen = look_at(pid)
    assert seen is not None
    process = ProcessStarted(task_id=started.task_id, attempt=1, pid=pid, start_ticks=seen.start_ticks + ticks_off)
    return Unended(started, (process,))


def ids_of(started: Started) -> dict[str, str]:
    return {"CHIFFON_TASK_ID": str(started.task_id), "CHIFFON_ATTEMPT": str(started.attempt)}


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a script in a group of its own, which says when it is ready; what is left is killed afterwards."""
    children: list[asyncio.subprocess.Process] = []

    async def run(script: str, env: dict[str, str] | None = None) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            script,
            env={"PATH": os.environ["PATH"], **(env or {})},
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        children.append(child)
        return child

    yield run
    for child in children:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, 9)
        await child.communicate()


async def line_of(child: asyncio.subprocess.Process) -> list[int]:
    assert child.stdout is not None
    return [int(word) for word in (await child.stdout.readline()).split()]


async def test_a_whole_group_is_killed(start: Start) -> None:
    started = make_started()
    child = await start("sleep 60 & echo $$ $!; wait", ids_of(started))
    pids = await line_of(child)

    killed = await asyncio.to_thread(end_orphans, noted(started, child.pid))

    assert killed == sorted(pids)
    for pid in pids:
        await eventually(partial(is_gone, pid))


async def test_a_group_whose_leader_is_dead_is_known_by_the_ids_in_its_environment(start: Start) -> None:
    started = make_started()
    child = await start("sleep 60 > /dev/null & echo $!; kill -KILL $$", ids_of(started))
    (orphan,) = await line_of(child)
    await child.wait()
    process = ProcessStarted(task_id=started.task_id, attempt=1, pid=child.pid, start_ticks=1)
    left = Unended(started, (process,))

    assert await asyncio.to_thread(end_orphans, left) == [orphan]


async def test_whoever_left_the_group_is_known_by_the_ids_in_its_environment(start: Start) -> None:
    started = make_started()
    child = await start("setsid sh -c 'echo $$; exec sleep 60 > /dev/null' & wait", ids_of(started))
    (escaped,) = await line_of(child)
    left = noted(started, child.pid)

    assert set(await asyncio.to_thread(end_orphans, left)) >= {child.pid, escaped}
    await eventually(partial(is_gone, escaped))


async def test_a_process_whose_start_was_not_journaled_is_known_by_its_ids(start: Start) -> None:
    started = make_started()
    child = await start("echo $$; exec sleep 60", ids_of(started))
    pids = await line_of(child)

    assert await asyncio.to_thread(end_orphans, Unended(started, ())) == pids


async def test_an_id_that_was_given_to_somebody_else_is_left_alone(start: Start) -> None:
    started = make_started()
    child = await start("echo $$; exec sleep 60", ids_of(make_started()))
    await line_of(child)

    assert await asyncio.to_thread(end_orphans, noted(started, child.pid, ticks_off=-1)) == []
    assert not is_gone(child.pid)


async def test_a_process_that_names_no_possible_attempt_is_left_alone(start: Start) -> None:
    started = make_started()
    child = await start("echo $$; exec sleep 60", {**ids_of(started), "CHIFFON_ATTEMPT": "1" * 5000})
    await line_of(child)

    assert await asyncio.to_thread(end_orphans, Unended(started, ())) == []
    assert not is_gone(child.pid)


async def test_another_attempt_of_the_same_task_is_left_alone(start: Start) -> None:
    started = make_started()
    child = await start("echo $$; exec sleep 60", {**ids_of(started), "CHIFFON_ATTEMPT": "2"})
    await line_of(child)

    assert await asyncio.to_thread(end_orphans, Unended(started, ())) == []
    assert not is_gone(child.pid)


async def test_nothing_of_before_a_reboot_can_be_meant(start: Start) -> None:
    started = make_started(boot="another-boot")
    child = await start("echo $$; exec sleep 60", ids_of(started))
    await line_of(child)

    assert await asyncio.to_thread(end_orphans, noted(started, child.pid)) == []
    assert not is_gone(child.pid)


def test_a_process_is_seen_whatever_its_name() -> None:
    seen = look_at(os.getpid())

    assert seen is not None
    assert (seen.pid, seen.group) == (os.getpid(), os.getpgrp())
    assert look_at(2**22 + 1) is None


async def test_a_process_that_got_the_id_of_one_that_was_seen_is_left_alone(start: Start) -> None:
    child = await start("echo $$; exec sleep 60")
    await line_of(child)
    seen = look_at(child.pid)
    assert seen is not None

    assert not table._kill(seen._replace(start_ticks=seen.start_ticks - 1))

    assert not is_gone(child.pid)


async def test_a_process_that_shows_no_environment_for_a_moment_is_killed_all_the_same(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = make_started()
    child = await start("echo $$; exec sleep 60", ids_of(started))
    await line_of(child)
    read, looks = table._read, 0

    def becoming_another(pid: int, name: str) -> bytes:
        nonlocal looks
        if (pid, name) != (child.pid, "environ"):
            return read(pid, name)
        looks += 1
        return b"" if looks == 1 else read(pid, name)

    monkeypatch.setattr(table, "_read", becoming_another)

    assert await asyncio.to_thread(end_orphans, Unended(started, ())) == [child.pid]
