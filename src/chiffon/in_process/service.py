"""The orchestrator of one process: it takes work, and a worker of its own runs it; whoever submits never does."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agents.processes.keepers import Keepers
from chiffon.in_process.gate import Gate, NotPermitted, Run, WriteGate, open_gate
from chiffon.in_process.model import BadExecution, Claim, Execution, WorkFailed
from chiffon.in_process.queue import QueueService
from common.errors import ErrorCode
from common.lifecycle import Status

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


class OrchestratorService:
    """Use it as a context manager; leaving it stops the worker. For `url`, `retries` and `store` see `QueueService`.

    `gate` is asked right before an execution starts; when it refuses, the execution fails with 3001 and nothing runs.
    `at_once` is how many run side by side.
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        retries: int = 0,
        store: Path | str | None = None,
        gate: Gate = open_gate,
        at_once: int = 1,
    ) -> None:
        if at_once < 1:
            raise BadExecution("at_once: must be at least 1")
        self.queue = QueueService(url, retries=retries, store=store)
        self._keepers = Keepers()
        self._gate = WriteGate(gate, self._keepers)
        self._at_once = at_once
        self._worker: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.queue.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_worker()
        self._keepers.close()
        await self.queue.__aexit__(kind, error, trace)

    def register(self, command: str, run: Run) -> None:
        """Have a function run the executions of a command: it gets the payload and returns what JSON can hold.

        It raises `WorkFailed` to say how it failed; any other exception is a failure that is not retried.
        """
        self._gate.register(command, run)

    async def submit_execution(
        self,
        command: str,
        payload: Mapping[str, Any] | None = None,
        approval_id: str | None = None,
        execution_id: str | None = None,
    ) -> Execution:
        """Store work to be done and return at once; the same `execution_id` again is the same execution.

        Raises `ExecutionConflict` when the id is taken by other content, and `BadExecution` for a command that nobody
        here can run and for what cannot be stored.
        """
        if command not in self._gate.commands:
            known = ", ".join(self._gate.commands)
            raise BadExecution(f"command: {command!r} is not known; allowed: {known}")
        return await self.queue.enqueue(command, payload, approval_id=approval_id, execution_id=execution_id)

    async def outcome(self, execution_id: str, *, timeout: float | None = None) -> Execution:
        """Wait until an execution has ended; raises `UnknownExecution`, and TimeoutError after `timeout` seconds."""
        return await self.queue.ended(execution_id, timeout=timeout)

    async def start_worker(self) -> None:
        """Begin to run what waits; nothing happens when it runs already."""
        if self._worker is None:
            self._stopping.clear()
            self._worker = asyncio.create_task(self._work(), name="in-process worker")

    async def stop_worker(self) -> None:
        """Take nothing new, wait until what runs has ended, and stop."""
        if self._worker is None:
            return
        self._stopping.set()
        worker, self._worker = self._worker, None
        await worker

    async def _work(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                claim = await self._next()
                failures = 0
            except Exception:
                failures += 1
                log.exception("worker.claim_failed", extra={"failures": failures})
                await self._pause(min(LONGEST_PAUSE, FIRST_PAUSE * 2**failures))
                continue
            if claim is not None:
                task = asyncio.create_task(self._execute(claim), name=f"execution {claim.execution.execution_id}")
                self._running.add(task)
                task.add_done_callback(self._ended)
        if self._running:
            await asyncio.wait(self._running)

    async def _next(self) -> Claim | None:
        """Wait for room and for work; None when it stops before there is some."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while len(self._running) >= self._at_once:
                await asyncio.wait({stopping, *self._running}, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    return None
        finally:
            stopping.cancel()
        return await self.queue.claim(until=self._stopping)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            # The store could not take it; the next start finds that it was left running.
            log.error("execution.not_stored", exc_info=failure, extra={"task": task.get_name()})

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _execute(self, claim: Claim) -> None:
        execution = claim.execution
        try:
            await self.queue.ack(claim, await self._gate.run(execution))
        except NotPermitted as refusal:
            await self.queue.nack(claim, f"refused: {refusal}", code=ErrorCode.POLICY_REFUSED)
        except BadExecution as failure:
            await self._failed(claim, str(failure), code=ErrorCode.INTERNAL)
        except WorkFailed as failure:
            await self._failed(claim, str(failure), code=failure.code, retryable=failure.retryable)
        except Exception as error:
            log.exception("execution.failed", extra={"execution_id": execution.execution_id})
            await self._failed(claim, f"The executor failed: {type(error).__name__}.", code=ErrorCode.INTERNAL)

    async def _failed(self, claim: Claim, message: str, *, code: int | None, retryable: bool = False) -> None:
        status = await self.queue.nack(claim, message, code=code, retryable=retryable)
        log.info(
            "execution.retried" if status is Status.PENDING else "execution.ended",
            extra={"execution_id": claim.execution.execution_id, "reason": message},
        )
