"""An agent that was drained just leaves; any other end of a part is a failure."""

import asyncio
import sys
from pathlib import Path

from chiffon.parts import first_failure
from chiffon.processes import Child, ChildDied


async def start(folder: Path, name: str, program: str, *, may_leave: bool) -> Child:
    command = [sys.executable, "-c", program]
    return await Child.start(name, command, log=folder / f"{name}.log", environment={}, may_leave=may_leave)


async def test_an_agent_that_left_in_good_order_is_no_failure_and_one_that_died_is(tmp_path: Path) -> None:
    drained = await start(tmp_path, "drained", "", may_leave=True)
    gate = tmp_path / "gate"
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nraise SystemExit('broken')"
    dying = await start(tmp_path, "dying", waits, may_leave=True)
    watching = asyncio.create_task(first_failure([drained, dying]))

    await drained.ended
    gate.touch()
    failure = await watching

    assert isinstance(failure, ChildDied)
    assert "dying ended (exit status 1)" in str(failure)
    assert "broken" in str(failure)


async def test_an_orchestrator_may_never_just_leave(tmp_path: Path) -> None:
    orchestrator = await start(tmp_path, "orchestrator", "", may_leave=False)

    failure = await first_failure([orchestrator])

    assert "orchestrator ended (exit status 0)" in str(failure)
