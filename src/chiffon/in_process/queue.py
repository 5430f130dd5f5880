"""The queue: executions are stored, and tickets of them travel through a broker; the store decides who runs what."""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import NAMESPACE_URL, uuid4, uuid5

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
from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable, Consumer, Delivery, Outgoing, Queue
from common.broker.connect import open_broker
from common.clock import Clock, SystemClock
from common.errors import ErrorCode
from common.lifecycle import Status
from common.loop import Health, end, keep_running
from common.result import canonical_result

log = logging.getLogger(__name__)

MOST_RETRIES = 1
A_DAY = timedelta(days=1)
# How long a claim relies on tickets before it looks into the store itself.
LOOK_SECONDS = 5.0
EXPIRY_SECONDS = 1.0


class QueueService:
    """Enqueue, claim, and say what came of it: `ack` or `nack`. Use it as a context manager.

    `url` names the broker: memory://, file:///…, postgresql://… or amqp://…. `store` is the file in which executions
    are kept; without it they live in memory. `retries` is 0 or 1: how often work that failed retryably is tried again.
    `approval_wait` is how long an execution can be approved.
    """

    def __init__(
        self,
        url: str = "memory://",
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
        self._url = url
        self._max_attempts = 1 + retries
        self._clock = clock or SystemClock()
        self.store = Store(None if store is None else Path(store), self._clock)
        self._approvals = Approvals(self.store, self._clock, approval_wait)
        self._stack = AsyncExitStack()
        self._broker: Broker | None = None
        self._queue = Queue("", ())
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.store)
            self._broker = await stack.enter_async_context(open_broker(self._url, name="chiffon in process"))
            # A queue of this store's own: a ticket means nothing to anybody else.
            self._queue = topology.work_queue(f"in-process-{self.store.id}")
            await self._broker.declare(topology.DEAD_LETTER_QUEUE, self._queue)
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
        execution, is_claimable = await self.store.add(self._checked(job, needs_approval=needs_approval))
        if is_claimable:
            await self._publish(execution)
        return execution

    async def awaiting_approval(self) -> list[Execution]:
        """Return the executions that wait for approval, the oldest first."""
        return await self.store.with_status(Status.AWAITING_APPROVAL)

    async def approve(self, execution_id: str, *, by: str) -> Execution:
        """Have an execution that waits for approval, or was refused, run; the same person again changes nothing.

        Raises `UnknownExecution`, `ApprovalForbidden` for the person who requested it, and `ApprovalNotPossible` when
        it does not wait, or waited too long.
        """
        execution, is_claimable = await self._approvals.approve(execution_id, by=by)
        if is_claimable:
            await self._publish(execution)
        return execution

    async def reject(self, execution_id: str, *, by: str, reason: str) -> Execution:
        """Say no to an execution: it is cancelled, or stays failed if it was refused. Raises what `approve` raises."""
        execution = await self._approvals.reject(execution_id, by=by, reason=reason)
        await self._tell()
        return execution

    async def cancel(self, execution_id: str, *, by: str) -> Execution:
        """Cancel an execution: the answer for its claim does not count any more. Once more changes nothing.

        Raises `UnknownExecution` and `ExecutionHasEnded`.
        """
        check_name_argument("by", by)
        execution = await self.store.cancel(execution_id, by=by)
        await self._tell()
        return execution

    async def claim(self, *, until: asyncio.Event | None = None) -> Claim | None:
        """Wait for an execution, which is the caller's from then on; None when `until` is set before there is one.

        Being cancelled may lose a claim until the next start: use `until`.
        """
        stop = asyncio.Event() if until is None else until
        while not stop.is_set():
            # Opened anew for each claim that waits in vain, so that what was delivered to nobody goes back.
            async with self._opened().consume(self._queue.name, prefetch=1) as consumer:
                for delivery in await _receive(consumer, stop):
                    # From here on the store says whose it is, so that the ticket is used up.
                    claim = await self.store.claim(json.loads(delivery.body)["execution_id"])
                    await consumer.ack(delivery)
                    if claim is not None:
                        return claim
            if not stop.is_set() and (claim := await self.dequeue()) is not None:
                return claim
        return None

    async def dequeue(self) -> Claim | None:
        """Claim the oldest execution that waits, with or without a ticket, at once; None when none does."""
        for execution in await self.store.with_status(Status.PENDING):
            if (claim := await self.store.claim(execution.execution_id)) is not None:
                return claim
        return None

    async def ack(self, claim: Claim, result: Any = None) -> bool:
        """Store the result of a claim; False when it does not count, because that attempt is over.

        Raises `BadExecution` for a result that JSON cannot hold.
        """
        try:
            text = json.dumps(canonical_result(result), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadExecution(f"The result cannot be stored: {error}") from None
        counted = await self.store.succeed(claim, text)
        await self._tell()
        return counted

    async def nack(
        self, claim: Claim, message: str, *, code: int | None = None, retryable: bool = False
    ) -> Status | None:
        """Store that a claim failed; return where the execution stands then, None when that attempt is over."""
        status = await self.store.fail(claim, message, code=code, retryable=retryable)
        if status is Status.PENDING:
            await self._publish(claim.execution)
        await self._tell()
        return status

    async def refuse(self, claim: Claim, reason: str) -> bool:
        """Store that a claim was not permitted, and nothing of it ran; it fails, and can be approved.

        False when that attempt is over.
        """
        counted = await self.store.refuse(
            claim,
            f"refused: {reason}",
            code=ErrorCode.POLICY_REFUSED,
            approval_expires_at=self._approvals.expires_at(),
        )
        await self._tell()
        return counted

    async def ended(self, execution_id: str, *, timeout: float | None = None) -> Execution:
        """Wait until an execution has ended and return it; raises `UnknownExecution`, and TimeoutError."""
        async with asyncio.timeout(timeout), self._changed:
            while not (execution := await self.store.get(execution_id)).status.is_final:
                await self._changed.wait()
            return execution

    async def depth(self) -> int:
        """Return how many tickets are with the broker."""
        return await self._opened().depth(self._queue.name)

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

    def _opened(self) -> Broker:
        assert self._broker is not None, "it is open"
        return self._broker

    async def _publish(self, execution: Execution) -> None:
        """Send a ticket. When the broker is away, the execution waits in the store and is found there."""
        ticket = Outgoing(
            self._queue.bindings[0],
            json.dumps({"execution_id": execution.execution_id}).encode(),
            type="execution",
            message_id=uuid5(NAMESPACE_URL, f"{execution.execution_id}#{uuid4()}"),
        )
        try:
            await self._opened().publish(ticket)
        except BrokerUnavailable as failure:
            log.warning(
                "execution.not_published", extra={"execution_id": execution.execution_id, "reason": str(failure)}
            )

    async def _recover(self) -> None:
        """Settle what an earlier process left running, and give everything that waits a ticket."""
        back, failed = await self.store.reconcile()
        for execution in back:
            log.warning("recovery.execution_put_back", extra={"execution_id": execution.execution_id})
        for execution in failed:
            log.warning("recovery.execution_failed", extra={"execution_id": execution.execution_id})
        for execution in await self.store.with_status(Status.PENDING):
            await self._publish(execution)

    async def _expire(self) -> None:
        """Cancel what was not approved in time, and pause."""
        if expired := await self._approvals.expire():
            log.info("approval.expired", extra={"executions": expired})
            await self._tell()
        await asyncio.sleep(EXPIRY_SECONDS)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _receive(consumer: Consumer, stop: asyncio.Event) -> Sequence[Delivery]:
    """Wait for a ticket; none when it is time to stop, or to look whether something waits without one."""
    receiving, stopping = asyncio.ensure_future(consumer.receive()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({receiving, stopping}, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return receiving.result() if receiving.done() and not stop.is_set() else ()
    finally:
        for waiting in (receiving, stopping):
            waiting.cancel()
        await asyncio.gather(receiving, stopping, return_exceptions=True)
