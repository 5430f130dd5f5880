"""A keeper owns all that its program started, and nothing of it lives on, whatever is killed or hangs."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from agents.attempts.owned import Attempt
from agents.processes.deadlines import Deadlines
from agents.processes.keepers import PROGRAM, Keeper, Keepers
from common.messages import GrantedTask, WorkRequest
from tests.eventually import eventually
from tests.unit.agents.conftest import FAMILY, Begin
from tests.unit.agents.test_process import is_gone

FAR = 3600.0


def make_attempt(*, lease_seconds: float) -> Attempt:
    grant = GrantedTask(
        claim_id=uuid4(),
        work=WorkRequest(task_id=uuid4(), work_type="shell_script"),
        trace_id=uuid4(),
        request_id=uuid4(),
        attempt=1,
        lease_seconds=lease_seconds,
    )
    return Attempt.granted(grant, asked_at=time.monotonic())


async def family_of(keeper: Keeper, *, size: int = 4) -> list[psutil.Process]:
    """Return the program and all that it started, once they are all there."""
    owner = psutil.Process(keeper.keeper_pid)
    await eventually(lambda: sum(map(_sleeps, owner.children(recursive=True))) == size - 1)
    return owner.children(recursive=True)


def _sleeps(process: psutil.Process) -> bool:
    try:
        return bool(process.name() == "sleep")
    except psutil.NoSuchProcess:  # between its start and here it became another, and ended
        return False


async def all_gone(processes: list[psutil.Process]) -> None:
    for process in processes:
        await eventually(partial(is_gone, process.pid))


def guardian() -> psutil.Process:
    [one] = [child for child in psutil.Process().children() if PROGRAM in child.cmdline()]
    return one


async def test_all_that_a_program_started_dies_with_one_order(begin: Begin) -> None:
    keeper = await begin()
    family = await family_of(keeper)

    await keeper.kill()

    assert all(is_gone(process.pid) for process in family)
    assert (keeper.ended.result(), keeper.clean.result()) == (-9, 3)


async def test_all_of_it_dies_when_the_agent_is_gone(begin: Begin) -> None:
    keeper = await begin()
    everything = [*await family_of(keeper), psutil.Process(keeper.keeper_pid)]

    keeper.close()

    await all_gone(everything)


async def test_all_of_it_dies_at_its_deadline_and_not_before(begin: Begin) -> None:
    keeper = await begin()
    family = await family_of(keeper)
    deadline = time.monotonic() + 0.5
    keeper.kill_at(deadline)

    assert not any(is_gone(process.pid) for process in family)
    await keeper.clean

    assert time.monotonic() >= deadline
    assert all(is_gone(process.pid) for process in family)


async def test_a_program_is_held_until_shortly_before_its_lease_ends(begin: Begin) -> None:
    attempt, deadlines = make_attempt(lease_seconds=1.0), Deadlines()
    keeper = await begin()

    deadlines.hold(attempt, keeper)
    await keeper.clean

    # After the agent's own kill, and before the end of the lease.
    assert attempt.lease_until - 0.1 < time.monotonic() < attempt.lease_until


async def test_a_renewed_lease_moves_the_deadline(begin: Begin) -> None:
    renewed, overdue, deadlines = make_attempt(lease_seconds=1.0), make_attempt(lease_seconds=1.5), Deadlines()
    spared, doomed = await begin(), await begin()
    deadlines.hold(renewed, spared)
    deadlines.hold(overdue, doomed)
    renewed.lease_until += FAR
    deadlines.renewed(renewed)

    await doomed.clean

    assert not spared.ended.done()


async def test_what_a_killed_keeper_had_is_killed_by_the_guardian(begin: Begin) -> None:
    keeper, other = await begin(), await begin()
    family, spared = await family_of(keeper), await family_of(other)

    os.kill(keeper.keeper_pid, signal.SIGKILL)
    await keeper.clean

    assert all(is_gone(process.pid) for process in family)
    assert not any(is_gone(process.pid) for process in spared)


async def test_a_program_dies_with_its_keeper_when_there_is_no_guardian_any_more(begin: Begin) -> None:
    keeper = await begin("exec sleep 600")
    guardian().kill()

    os.kill(keeper.keeper_pid, signal.SIGKILL)

    await eventually(partial(is_gone, keeper.pid))


async def test_a_keeper_that_its_program_stopped_does_not_save_the_program(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.processes.keepers.KEEPER_SECONDS", 0.5)
    keeper = await begin(f"sleep 0.3; kill -STOP $PPID; {FAMILY}")
    family = await family_of(keeper)

    await keeper.kill()

    assert all(is_gone(process.pid) for process in family)


async def test_a_keeper_that_its_program_stopped_at_once_does_not_save_it_either(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await (await begin("true")).kill()  # so that the guardian is there
    monkeypatch.setattr("agents.processes.keepers.KEEPER_SECONDS", 1.0)
    keeper = None
    with suppress(OSError):  # when it was stopped before it could say that the program runs
        keeper = await begin(f"kill -STOP $PPID; touch {tmp_path}/ran; {FAMILY}")
    await eventually((tmp_path / "ran").exists)

    if keeper is not None:
        await keeper.kill()

    assert guardian().children(recursive=True) == []


async def test_a_keeper_that_its_program_stopped_sees_that_the_agent_is_gone(begin: Begin) -> None:
    keeper = await begin(f"sleep 0.3; kill -STOP $PPID; {FAMILY}")
    family, owner = await family_of(keeper), psutil.Process(keeper.keeper_pid)
    await eventually(lambda: owner.status() == psutil.STATUS_STOPPED)

    keeper.close()

    await all_gone(family)


async def test_a_guardian_that_was_lost_is_replaced_and_its_keepers_go_on(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    first = await begin()
    family, lost = await family_of(first), guardian()
    lost.kill()
    await eventually(partial(is_gone, lost.pid))

    with caplog.at_level(logging.WARNING):
        second = await begin()

    assert [record.message for record in caplog.records] == ["agent.guardian_lost"]
    assert not second.ended.done()
    await first.kill()
    assert all(is_gone(process.pid) for process in family)


async def test_a_guardian_that_hangs_is_replaced(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.processes.keepers.KEEPER_SECONDS", 0.5)
    await begin()
    hanging = guardian()
    hanging.suspend()

    with pytest.raises(OSError, match="did not begin in time"):
        await begin()
    keeper = await begin()

    assert is_gone(hanging.pid)
    assert not keeper.ended.done()


async def test_what_may_be_left_lives_on_and_is_reaped_by_its_keeper(begin: Begin, keepers: Keepers) -> None:
    keeper = await begin("setsid -f sleep 600; setsid -f true", may_leave=True)
    await keeper.ended
    owner = psutil.Process(keeper.keeper_pid)
    await eventually(lambda: [one.name() for one in owner.children()] == ["sleep"])
    [left] = owner.children()

    await keeper.leave()
    keeper.close()
    keepers.close()

    assert not is_gone(left.pid)
    assert left.ppid() == keeper.keeper_pid
    left.kill()
    await eventually(partial(is_gone, keeper.keeper_pid))


@pytest.mark.parametrize("wakes", [True, False])
async def test_a_keeper_that_was_stopped_leaves_what_may_be_left(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wakes: bool
) -> None:
    keeper = await begin("setsid -f sleep 600", may_leave=True)
    await keeper.ended
    owner = psutil.Process(keeper.keeper_pid)
    [left] = owner.children()
    owner.suspend()
    if not wakes:
        monkeypatch.setattr("agents.processes.keepers.KEEPER_SECONDS", 0.5)
        monkeypatch.setattr(Keeper, "_signal", lambda keeper, number: None)

    with caplog.at_level(logging.ERROR):
        await keeper.leave()

    assert keeper.clean.result() == 0
    assert [record.message for record in caplog.records] == ([] if wakes else ["work.keeper_silent"])
    keeper.close()
    owner.resume()
    assert not is_gone(left.pid)
    left.kill()
    await eventually(partial(is_gone, keeper.keeper_pid))


async def test_what_may_be_left_dies_with_the_agent_as_long_as_the_program_runs(begin: Begin) -> None:
    keeper = await begin(may_leave=True)
    family = await family_of(keeper)

    keeper.close()

    await all_gone(family)


AGENT = """
import os, sys, uvloop
from agents.processes.keepers import Keepers, Launch
async def main():
    keepers, nothing = Keepers(), os.open(os.devnull, os.O_RDWR)
    launch = Launch(["/bin/sh"], ["/bin/sh", "-c", sys.argv[1]], {"PATH": "/usr/bin:/bin"}, "/")
    keeper = await keepers.start(launch, [nothing] * 3)
    print(keeper.keeper_pid, flush=True)
    await keeper.ended
uvloop.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_nothing_outlives_an_agent_that_is_killed(number: signal.Signals) -> None:
    source = str(Path(__file__).parents[3] / "src")
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, FAMILY], env={**os.environ, "PYTHONPATH": source}, stdout=subprocess.PIPE
    ) as agent:
        assert agent.stdout is not None
        owner = psutil.Process(int(await asyncio.to_thread(agent.stdout.readline)))
        await eventually(lambda: len(owner.children(recursive=True)) == 4)
        everything = [*owner.children(recursive=True), owner, owner.parent()]

        agent.send_signal(number)

    await all_gone([process for process in everything if process is not None])
