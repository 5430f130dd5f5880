"""A process that is killed in the middle loses nothing: the store says what ran."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from chiffon.in_process import OrchestratorService
from common.errors import StartupRefused
from common.lifecycle import Status

PROGRAM = """
import asyncio, sys
from chiffon.in_process import OrchestratorService

async def hang(payload):
    print("started", flush=True)
    await asyncio.Event().wait()

async def main():
    async with OrchestratorService(retries=int(sys.argv[2]), store=sys.argv[1]) as service:
        service.register("hang", hang, effect="read")
        await service.submit_execution("hang", {}, execution_id="first")
        await service.submit_execution("hang", {}, execution_id="second")
        await service.start_worker()
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def ended(payload: object) -> str:
    return "after the crash"


@pytest.mark.parametrize(("retries", "status"), [(0, Status.FAILED), (1, Status.COMPLETED)])
async def test_what_ran_is_tried_again_if_it_may_and_what_waited_runs(
    tmp_path: Path, retries: int, status: Status
) -> None:
    store = tmp_path / "executions.db"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(store), str(retries)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    with pytest.raises(StartupRefused, match="Another process"):
        async with OrchestratorService(store=store):
            pass
    process.send_signal(signal.SIGKILL)
    await process.wait()

    async with OrchestratorService(retries=retries, store=store) as service:
        service.register("hang", ended, effect="read")
        await service.start_worker()
        first = await service.outcome("first", timeout=30)
        second = await service.outcome("second", timeout=30)

    assert (first.status, first.attempt) == (status, 1 + retries)
    if status is Status.FAILED:
        assert (first.error_code, "worker lost" in str(first.error_message)) == (5002, True)
    assert (second.status, second.result) == (Status.COMPLETED, "after the crash")
