"""Where the kernel lists no processes and hands on no orphans, as outside Linux, a program dies with its group."""

import os
import signal
from pathlib import Path

import pytest

from agents.processes.keepers import Keeper
from tests.eventually import eventually
from tests.unit.agents.conftest import Begin
from tests.unit.agents.faulty_keepers import break_keepers
from tests.unit.agents.test_process import is_gone

NO_PROC = 'table.PROC = "/nowhere"; table.LISTS_CHILDREN = False'
NO_PRCTL = "guardian.prctl = keeper.prctl = program.prctl = None"
# Its child has no other parent once the program has ended, and is in its group.
CHILD = "sleep 600 & echo $! > child.new; mv child.new child; "


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.processes.table.PROC", "/nowhere")
    monkeypatch.setattr("agents.processes.table.LISTS_CHILDREN", False)
    break_keepers(monkeypatch, f"{NO_PROC}\n{NO_PRCTL}")


@pytest.fixture
def impatient(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Begin as ever, and then wait only a little for a keeper that cannot see that nothing is left."""

    async def begun(script: str) -> Keeper:
        keeper = await begin(script)
        monkeypatch.setattr("agents.processes.keepers.KEEPER_SECONDS", 2.0)
        return keeper

    return begun


async def child_in(folder: Path) -> int:
    """Return the child's id once it runs: a shell's child that is not there yet loses a signal."""
    await eventually((folder / "child").exists)
    child = int((folder / "child").read_text())
    await eventually(lambda: Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sleep"))
    return child


async def test_a_program_and_its_group_are_killed(impatient: Begin, tmp_path: Path) -> None:
    keeper = await impatient(f"cd {tmp_path}; {CHILD} wait")
    child = await child_in(tmp_path)

    await keeper.kill()

    assert keeper.ended.result() == -signal.SIGKILL
    await eventually(lambda: is_gone(keeper.pid))
    await eventually(lambda: is_gone(child))
    await eventually(lambda: is_gone(keeper.keeper_pid))


async def test_a_program_and_its_group_are_asked_to_end(begin: Begin, tmp_path: Path) -> None:
    keeper = await begin(f"cd {tmp_path}; trap 'exit 7' TERM; {CHILD} wait")
    child = await child_in(tmp_path)

    keeper.terminate()

    assert await keeper.ended == 7
    await eventually(lambda: is_gone(child))


async def test_what_a_program_left_in_its_group_is_killed(impatient: Begin, tmp_path: Path) -> None:
    keeper = await impatient(f"cd {tmp_path}; {CHILD}")
    child = await child_in(tmp_path)
    await keeper.ended

    assert not is_gone(child)
    await keeper.kill()

    await eventually(lambda: is_gone(child))
    await eventually(lambda: is_gone(keeper.keeper_pid))


async def test_what_a_program_left_in_its_group_lives_on_where_it_may(begin: Begin, tmp_path: Path) -> None:
    keeper = await begin(f"cd {tmp_path}; {CHILD}", may_leave=True)
    child = await child_in(tmp_path)
    await keeper.ended

    await keeper.leave()
    keeper.close()

    await eventually(lambda: is_gone(keeper.keeper_pid))
    assert not is_gone(child)
    os.kill(child, signal.SIGKILL)


async def test_a_program_that_leaves_nothing_is_over_at_once(begin: Begin) -> None:
    keeper = await begin("exit 3")

    assert await keeper.ended == 3
    assert await keeper.clean == 0
