"""What the work types of every agent get, and how their ends count, inside one process."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from agents.attempts.stopping import StopReason, StopSignal
from agents.attempts.workspace import Workspaces
from agents.executors.base import ExecutionContext, Outcome
from agents.executors.environment import inherited
from agents.output.progress_file import PROGRESS_VARIABLE
from agents.processes.keepers import Keepers
from agents.processes.table import ATTEMPT_VARIABLE, TASK_VARIABLE
from agents.settings import DEFAULT_ENV_ALLOW
from chiffon.in_process.model import Execution, WorkFailed
from common.errors import ErrorCode
from common.messages import MAX_TAIL_BYTES, ResultStatus, Stream, WorkRequest

Start = Callable[[WorkRequest, ExecutionContext], Awaitable[Outcome]]

KILL_GRACE_SECONDS = 10.0


async def run_program(execution: Execution, start: Start, keepers: Keepers) -> Any:
    """Run an execution of a built-in work type; its gate starts it. Raises `WorkFailed`.

    Cancelling this stops what it started: SIGTERM, and after `KILL_GRACE_SECONDS` SIGKILL.
    """
    output, stop = {stream: bytearray() for stream in Stream}, StopSignal()

    async def write(stream: Stream, data: bytes) -> None:
        output[stream] += data
        del output[stream][:-MAX_TAIL_BYTES]  # the end of it, as a task of an agent shows

    work = WorkRequest(task_id=uuid4(), work_type=execution.command, parameters=dict(execution.payload))
    try:
        with _place() as workspaces:
            async with workspaces.open(work.task_id, execution.attempt) as workspace:
                context = ExecutionContext(
                    workspace=workspace,
                    inherited=inherited(DEFAULT_ENV_ALLOW),
                    ids={
                        TASK_VARIABLE: execution.execution_id,
                        ATTEMPT_VARIABLE: str(execution.attempt),
                        PROGRESS_VARIABLE: os.devnull,  # a program that reports where it stands runs here as well
                    },
                    write=write,
                    stop=stop,
                    kill_grace_seconds=KILL_GRACE_SECONDS,
                    keepers=keepers,
                )
                outcome = (await _run(start, work, context)).leaving(str)
    except OSError as error:
        message = f"The host failed: {error}."
        raise WorkFailed(message, code=ErrorCode.RESOURCE_LIMIT, retryable=True) from error
    texts = {stream.value: bytes(data).decode(errors="replace") for stream, data in output.items()}
    if outcome.status is not ResultStatus.COMPLETED:
        message = outcome.error_message or "It was stopped."
        raise WorkFailed(message, code=outcome.error_code, retryable=outcome.retryable)
    result = {} if outcome.result is None else {"result": outcome.result}
    return {"exit_code": outcome.exit_code, **texts, **result}


async def _run(start: Start, work: WorkRequest, context: ExecutionContext) -> Outcome:
    """Run work to its end; cancelling this stops it first."""
    running = asyncio.ensure_future(start(work, context))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        context.stop.order(StopReason.CANCELLED, grace=KILL_GRACE_SECONDS)
        await asyncio.gather(running, return_exceptions=True)
        raise


@contextmanager
def _place() -> Iterator[Workspaces]:
    """Make a directory for a workspace; it goes when the workspace is gone."""
    root = Path(tempfile.mkdtemp(prefix="chiffon-"))
    try:
        yield Workspaces(root)
    finally:
        with suppress(OSError):  # what could not be removed is logged, and still in it
            root.rmdir()
