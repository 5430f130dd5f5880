"""What an agent cannot kill itself is killed for it, in time, and nothing else is."""

import asyncio
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import IO
from uuid import UUID, uuid4

import psutil
import pytest

from agents.attempts import Attempt
from agents.guard import COMMAND, PROGRAM, Guardian
from agents.process_table import look_at
from common.messages import GrantedTask, WorkRequest
from tests.eventually import eventually
from tests.unit.agents.test_process import is_gone

FAR = 3600.0

Start = Callable[[], int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the leader of a process group with a child in it; return its id."""
    with ExitStack() as stack:

        def started() -> int:
            process = stack.enter_context(
                subprocess.Popen(
                    ["/bin/sh", "-c", "sleep 600 & echo; wait"], stdout=subprocess.PIPE, start_new_session=True
                )
            )
            stack.callback(kill_group, process.pid)
            assert process.stdout is not None
            process.stdout.readline()
            return process.pid

        yield started


@pytest.fixture
def pipe() -> Iterator[IO[bytes]]:
    """The pipe of a guardian whose agent is the test."""
    with subprocess.Popen(COMMAND, bufsize=0, stdin=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin is not None
        yield process.stdin


def kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def ticks(pid: int) -> int:
    seen = look_at(pid)
    assert seen is not None
    return seen.start_ticks


def hold(pid: int, *, within: float) -> bytes:
    return held(pid, ticks(pid), time.monotonic() + within)


def held(pid: int, start_ticks: int, deadline: float, *, task_id: UUID | None = None) -> bytes:
    return f"hold {pid} {start_ticks} {deadline!r} {task_id or uuid4()} 1\n".encode()


def members(group: int) -> list[int]:
    return [pid for pid in psutil.pids() if (seen := look_at(pid)) and seen.group == group and seen.state != "Z"]


async def killed(group: int) -> None:
    await eventually(lambda: not members(group))


def make_attempt(*, lease_seconds: float) -> Attempt:
    grant = GrantedTask(
        claim_id=uuid4(),
        work=WorkRequest(task_id=uuid4(), work_type="shell_script"),
        trace_id=uuid4(),
        request_id=uuid4(),
        attempt=1,
        fence=1,
        lease_seconds=lease_seconds,
    )
    return Attempt.granted(grant, claimed_at=time.monotonic())


async def test_a_group_is_killed_at_its_deadline_and_not_before(pipe: IO[bytes], start: Start) -> None:
    group = start()
    deadline = time.monotonic() + 0.5
    pipe.write(held(group, ticks(group), deadline))

    assert len(members(group)) == 2
    await killed(group)

    assert time.monotonic() >= deadline


async def test_a_renewed_group_and_one_that_is_done_are_spared(pipe: IO[bytes], start: Start) -> None:
    renewed, done, overdue = start(), start(), start()
    pipe.write(hold(renewed, within=0.3) + hold(done, within=0.3) + hold(overdue, within=0.6))
    pipe.write(hold(renewed, within=FAR) + b"done %d %d\n" % (done, ticks(done)))

    await killed(overdue)

    assert len(members(renewed)) == len(members(done)) == 2


async def test_all_that_is_not_done_is_killed_when_the_agent_dies(pipe: IO[bytes], start: Start) -> None:
    one, other, done = start(), start(), start()
    for group in (one, other, done):
        pipe.write(hold(group, within=FAR))
    pipe.write(b"done %d %d\n" % (done, ticks(done)))

    pipe.close()

    await killed(one)
    await killed(other)
    assert len(members(done)) == 2


async def test_an_id_that_now_belongs_to_somebody_else_is_not_killed(pipe: IO[bytes], start: Start) -> None:
    foreign, ours = start(), start()
    pipe.write(held(foreign, ticks(foreign) - 1, 0.0))
    pipe.write(b"no line at all\nhold x y z\n")
    pipe.write(hold(ours, within=0))

    await killed(ours)

    assert len(members(foreign)) == 2


async def test_what_outlived_its_leader_or_left_its_group_dies_with_the_agent(pipe: IO[bytes], start: Start) -> None:
    task_id, unrelated = uuid4(), start()
    script = "sleep 600 & setsid sh -c 'echo $$; exec sleep 600' & wait $!"
    with subprocess.Popen(
        ["/bin/sh", "-c", script],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "CHIFFON_TASK_ID": str(task_id), "CHIFFON_ATTEMPT": "1"},
    ) as program:
        assert program.stdout is not None
        escaped = int(program.stdout.readline())
        pipe.write(held(program.pid, ticks(program.pid), time.monotonic() + FAR, task_id=task_id))
        program.kill()
    [orphan] = members(program.pid)
    assert not is_gone(escaped)

    pipe.close()

    await eventually(partial(is_gone, orphan))
    await eventually(partial(is_gone, escaped))
    assert len(members(unrelated)) == 2


async def test_the_agent_holds_what_runs_until_shortly_before_its_lease_ends(start: Start) -> None:
    group, attempt = start(), make_attempt(lease_seconds=1.0)
    with Guardian() as guardian:
        guardian.hold(attempt, pid=group, start_ticks=ticks(group))

        await eventually(partial(is_gone, group), every=0.005)

        # After the agent's own kill, and before the end of the lease.
        assert attempt.lease_until - 0.1 < time.monotonic() < attempt.lease_until


async def test_a_renewed_lease_moves_the_deadline_and_an_ended_attempt_has_none(start: Start) -> None:
    renewed, ended = start(), start()
    first, second, clock = (make_attempt(lease_seconds=1.0) for _ in range(3))
    with Guardian() as guardian:
        guardian.hold(first, pid=renewed, start_ticks=ticks(renewed))
        guardian.hold(second, pid=ended, start_ticks=ticks(ended))
        guardian.done(second)
        first.lease_until += FAR
        guardian.renewed(first)
        overdue = start()
        guardian.hold(clock, pid=overdue, start_ticks=ticks(overdue))

        await killed(overdue)

        assert len(members(renewed)) == len(members(ended)) == 2


async def test_a_guardian_that_was_lost_is_replaced_and_the_new_one_holds_everything(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    group, other = start(), start()
    attempt, second = make_attempt(lease_seconds=60.0), make_attempt(lease_seconds=60.0)
    with Guardian() as guardian:
        guardian.hold(attempt, pid=group, start_ticks=ticks(group))
        [first] = [child for child in psutil.Process().children() if PROGRAM in child.cmdline()]
        first.kill()
        await eventually(partial(is_gone, first.pid))
        assert len(members(group)) == 2

        with caplog.at_level(logging.WARNING):
            guardian.hold(second, pid=other, start_ticks=ticks(other))

        assert [record.message for record in caplog.records] == ["agent.guardian_lost"]
        assert len(members(group)) == len(members(other)) == 2

    await killed(group)
    await killed(other)


async def test_a_guardian_that_hangs_is_replaced_when_its_pipe_is_full(start: Start) -> None:
    group, attempt = start(), make_attempt(lease_seconds=60.0)
    with Guardian() as guardian:
        guardian.hold(attempt, pid=group, start_ticks=ticks(group))
        [first] = [child for child in psutil.Process().children() if PROGRAM in child.cmdline()]
        first.suspend()
        for _ in range(os.sysconf("SC_PAGESIZE")):
            guardian.renewed(attempt)
            await asyncio.sleep(0)

        assert is_gone(first.pid)
        assert len(members(group)) == 2
