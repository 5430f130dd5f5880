"""The orchestrator of one process: it takes work, and a worker of its own runs it; whoever submits never does."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from agents.processes.keepers import Keepers
from chiffon.in_process.gate import ContentChanged, Gate, NotPermitted, Run, WriteGate
from chiffon.in_process.model import BadExecution, Claim, Execution, Job, WorkFailed
from chiffon.in_process.queue import A_DAY, QueueService
from common.clock import Clock
from common.errors import ErrorCode
from common.lifecycle import Status
from common.policy.model import Effect

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


class OrchestratorService:
    """Use it as a context manager; leaving it stops the worker. For the other parameters see `QueueService`.

    Reads run at once, writes once a person has approved them. With a `gate` it says instead what may run: it is asked
    right before an execution starts, and when it refuses, the execution fails with 3001 and nothing runs. `at_once` is
    how many run side by side.
    """

    def __init__(
        self,
        *,
        retries: int = 0,
        store: Path | str | None = None,
        gate: Gate | None = None,
        at_once: int = 1,
        approval_wait: timedelta = A_DAY,
        clock: Clock | None = None,
    ) -> None:
        if at_once < 1:
            raise BadExecution("at_once: must be at least 1")
        self.queue = QueueService(retries=retries, store=store, approval_wait=approval_wait, clock=clock)
        self._keepers = Keepers()
        self._gate = WriteGate(gate, self._keepers)
        self._at_once = at_once
        self._worker: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        await self.queue.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_worker()
        self._keepers.close()
        await self.queue.__aexit__(kind, error, trace)

    def register(self, command: str, run: Run, *, effect: Effect | Literal["read", "write"]) -> None:
        """Have a function run the executions of a command: it gets the payload and returns what JSON can hold.

        `effect` is whether it only reads, or may write. The function raises `WorkFailed` to say how it failed; any
        other exception is a failure that is not retried. A cancel raises `asyncio.CancelledError` in it.
        """
        self._gate.register(command, run, effect)

    async def submit_execution(
        self,
        command: str,
        payload: Mapping[str, Any] | None = None,
        approval_id: str | None = None,
        execution_id: str | None = None,
        *,
        requested_by: str | None = None,
    ) -> Execution:
        """Store work to be done and return at once; the same `execution_id` again is the same execution.

        `requested_by` names the person who wants it, who cannot approve it. `approval_id` is for the gate and for those
        who approve; it lets nothing run by itself. If a gate refused the execution, another `approval_id` has the gate
        asked again. Raises `ExecutionConflict` when the id is taken by other content, and `BadExecution` for a command
        that is not registered and for what cannot be stored.
        """
        if command not in self._gate.commands:
            known = ", ".join(self._gate.commands)
            raise BadExecution(f"command: {command!r} is not known; allowed: {known}")
        job = Job(command, {} if payload is None else payload, approval_id, execution_id, requested_by)
        return await self.queue.enqueue(job, needs_approval=self._gate.needs_approval(command))

    async def awaiting_approval(self) -> list[Execution]:
        """Return the executions that wait for approval, the oldest first."""
        return await self.queue.awaiting_approval()

    async def approve(self, execution_id: str, *, by: str) -> Execution:
        """Approve an execution in the name of the person `by`; see `QueueService.approve`."""
        return await self.queue.approve(execution_id, by=by)

    async def reject(self, execution_id: str, *, by: str, reason: str) -> Execution:
        """Reject an execution in the name of the person `by`; see `QueueService.reject`."""
        return await self.queue.reject(execution_id, by=by, reason=reason)

    async def cancel(self, execution_id: str, *, by: str) -> Execution:
        """Cancel an execution that has not ended, and stop it if it runs; once more changes nothing.

        Raises `UnknownExecution` and `ExecutionHasEnded`.
        """
        execution = await self.queue.cancel(execution_id, by=by)
        running = self._running.get(execution_id)
        if running is not None and not running.cancelling():
            running.cancel()
        return execution

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
                self._begin(claim)
        if self._running:
            await asyncio.wait(self._running.values())

    def _begin(self, claim: Claim) -> None:
        execution_id = claim.execution.execution_id
        task = asyncio.create_task(self._execute(claim), name=f"execution {execution_id}")
        self._running[execution_id] = task

        def ended(_: asyncio.Task[None]) -> None:
            if self._running.get(execution_id) is task:
                del self._running[execution_id]
            if not task.cancelled() and (failure := task.exception()) is not None:
                # The store could not take it; the next start finds that it was left running.
                log.error("execution.not_stored", exc_info=failure, extra={"execution_id": execution_id})

        task.add_done_callback(ended)

    async def _next(self) -> Claim | None:
        """Wait for room and for work; None when it stops before there is some."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while len(self._running) >= self._at_once:
                await asyncio.wait({stopping, *self._running.values()}, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    return None
        finally:
            stopping.cancel()
        return await self.queue.claim(until=self._stopping)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _execute(self, claim: Claim) -> None:
        execution = claim.execution
        # Seen after this task is known: an execution that is cancelled later is stopped by its cancel.
        if not await self.queue.store.is_running(claim):
            return
        try:
            await self.queue.ack(claim, await self._gate.run(execution))
        except NotPermitted as refusal:
            await self.queue.refuse(claim, str(refusal))
        except ContentChanged as failure:
            await self._failed(claim, str(failure), code=ErrorCode.APPROVAL_MISMATCH)
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
