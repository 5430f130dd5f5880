"""The queue: executions are in the store, which decides who runs what; claims wait until one is added."""

import asyncio
import json
import logging
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from chiffon.in_process.approvals import Approvals
from chiffon.in_process.model import (
    BadExecution,
    Claim,
    Execution,
    Job,
    check_name_argument,
    check_text_argument,
    digest,
    frozen_payload,
)
from chiffon.in_process.store import Store
from common.clock import Clock, SystemClock
from common.errors import ErrorCode
from common.lifecycle import Status
from common.loop import Health, end, keep_running
from common.result import canonical_result

Found = TypeVar("Found")

log = logging.getLogger(__name__)

MOST_RETRIES = 1
A_DAY = timedelta(days=1)
EXPIRY_SECONDS = 1.0


class Broadcast:
    """Wakes all who wait for a change: take `next` before looking, and wait for it after looking in vain."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def send(self) -> None:
        """Wake all who wait."""
        self.next.set()
        self.next = asyncio.Event()

    async def after(self, change: Awaitable[Found]) -> Found:
        """Await a change of the store, and wake all who wait."""
        try:
            return await change
        finally:
            # Also for a caller who is cancelled: the store has begun the change, ends it, and does one thing at a
            # time, so that whoever looks now sees it.
            self.send()


class QueueService:
    """Enqueue, claim, and say what came of it: `ack` or `nack`. Use it as a context manager.

    `store` is the file in which executions are kept; without it they live in memory. `retries` is 0 or 1: how often
    work that failed retryably is tried again. `approval_wait` is how long an execution can be approved.
    """

    def __init__(
        self,
        *,
        retries: int = 0,
        store: Path | str | None = None,
        approval_wait: timedelta = A_DAY,
        clock: Clock | None = None,
    ) -> None:
        if retries not in range(MOST_RETRIES + 1):
            raise BadExecution(f"retries: must be 0 or {MOST_RETRIES}, not {retries!r}")
        if approval_wait <= timedelta(0):
            raise BadExecution("approval_wait: must be more than 0")
        self._max_attempts = 1 + retries
        self._clock = clock or SystemClock()
        self.store = Store(None if store is None else Path(store), self._clock)
        self._approvals = Approvals(self.store, self._clock, approval_wait)
        self._stack = AsyncExitStack()
        self._added = Broadcast()
        self._ended = Broadcast()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.store)
            await self._recover()
            expiring = asyncio.create_task(keep_running("expire_approvals", self._expire, health=Health()))
            stack.push_async_callback(end, expiring)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def enqueue(self, job: Job, *, needs_approval: bool = False) -> Execution:
        """Store an execution, to be claimed at once, or once it is approved.

        With a known `execution_id` it is the execution that is there already. If that was refused, another
        `approval_id` has it claimed again. Raises `ExecutionConflict` when the id is taken by other content, and
        `BadExecution` for what cannot be stored.
        """
        return await self._added.after(self.store.add(self._checked(job, needs_approval=needs_approval)))

    async def awaiting_approval(self) -> list[Execution]:
        """Return the executions that wait for approval, the oldest first."""
        return await self.store.with_status(Status.AWAITING_APPROVAL)

    async def approve(self, execution_id: str, *, by: str) -> Execution:
        """Have an execution that waits for approval, or was refused, run; the same person again changes nothing.

        Raises `UnknownExecution`, `ApprovalForbidden` for the person who requested it, and `ApprovalNotPossible` when
        it does not wait, or waited too long.
        """
        return await self._added.after(self._approvals.approve(execution_id, by=by))

    async def reject(self, execution_id: str, *, by: str, reason: str) -> Execution:
        """Say no to an execution: it is cancelled, or stays failed if it was refused. Raises what `approve` raises."""
        return await self._ended.after(self._approvals.reject(execution_id, by=by, reason=reason))

    async def cancel(self, execution_id: str, *, by: str) -> Execution:
        """Cancel an execution: the answer for its claim does not count any more. Once more changes nothing.

        Raises `UnknownExecution` and `ExecutionHasEnded`.
        """
        check_name_argument("by", by)
        return await self._ended.after(self.store.cancel(execution_id, by=by))

    async def claim(self, *, until: asyncio.Event | None = None) -> Claim | None:
        """Wait for an execution, which is the caller's from then on; None when `until` is set before there is one.

        Being cancelled may lose a claim until the next start: use `until`.
        """
        stop = asyncio.Event() if until is None else until
        while not stop.is_set():
            added = self._added.next
            if (claim := await self.dequeue()) is not None:
                return claim
            await _first_of(added, stop)
        return None

    async def dequeue(self) -> Claim | None:
        """Claim the oldest execution that waits, at once; None when none does."""
        return await self.store.claim_oldest()

    async def ack(self, claim: Claim, result: Any = None) -> bool:
        """Store the result of a claim; False when it does not count, because that attempt is over.

        Raises `BadExecution` for a result that JSON cannot hold.
        """
        try:
            text = json.dumps(canonical_result(result), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadExecution(f"The result cannot be stored: {error}") from None
        return await self._ended.after(self.store.succeed(claim, text))

    async def nack(
        self, claim: Claim, message: str, *, code: int | None = None, retryable: bool = False
    ) -> Status | None:
        """Store that a claim failed; return where the execution stands then, None when that attempt is over."""
        failed = self.store.fail(claim, message, code=code, retryable=retryable)
        return await self._added.after(self._ended.after(failed))  # it waits again, or it has ended

    async def refuse(self, claim: Claim, reason: str) -> bool:
        """Store that a claim was not permitted, and nothing of it ran; it fails, and can be approved.

        False when that attempt is over.
        """
        refused = self.store.refuse(
            claim,
            f"refused: {reason}",
            code=ErrorCode.POLICY_REFUSED,
            approval_expires_at=self._approvals.expires_at(),
        )
        return await self._ended.after(refused)

    async def ended(self, execution_id: str, *, timeout: float | None = None) -> Execution:
        """Wait until an execution has ended and return it; raises `UnknownExecution`, and TimeoutError."""
        async with asyncio.timeout(timeout):
            while True:
                ended = self._ended.next
                execution = await self.store.get(execution_id)
                if execution.status.is_final:
                    return execution
                await ended.wait()

    def _checked(self, job: Job, *, needs_approval: bool) -> Execution:
        execution_id = str(uuid4()) if job.execution_id is None else job.execution_id
        texts = {
            "command": job.command,
            "execution_id": execution_id,
            "approval_id": job.approval_id,
        }
        for name, text in texts.items():
            if text is not None:
                check_text_argument(name, text)
        if job.requested_by is not None:
            check_name_argument("requested_by", job.requested_by)
        payload = frozen_payload(job.payload)
        return Execution(
            execution_id=execution_id,
            command=job.command,
            payload=payload,
            digest=digest(job.command, payload),
            approval_id=job.approval_id,
            requested_by=job.requested_by,
            status=Status.AWAITING_APPROVAL if needs_approval else Status.PENDING,
            max_attempts=1 if needs_approval else self._max_attempts,
            created_at=self._clock.now(),
            approval_expires_at=self._approvals.expires_at() if needs_approval else None,
        )

    async def _recover(self) -> None:
        """Settle what an earlier process left running."""
        back, failed = await self.store.reconcile()
        for execution in back:
            log.warning("recovery.execution_put_back", extra={"execution_id": execution.execution_id})
        for execution in failed:
            log.warning("recovery.execution_failed", extra={"execution_id": execution.execution_id})

    async def _expire(self) -> None:
        """Cancel what was not approved in time, and pause."""
        if expired := await self._approvals.expire():
            log.info("approval.expired", extra={"executions": expired})
            self._ended.send()
        await asyncio.sleep(EXPIRY_SECONDS)


async def _first_of(*events: asyncio.Event) -> None:
    """Return when one of the events is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
