"""The queue: executions are stored, and tickets of them travel through a broker; the store decides who runs what."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import NAMESPACE_URL, uuid4, uuid5

from chiffon.in_process.model import BadExecution, Claim, Execution, digest
from chiffon.in_process.store import Store
from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable, Consumer, Delivery, Outgoing, Queue
from common.broker.connect import open_broker
from common.json_rules import check_json, check_text
from common.lifecycle import Status

log = logging.getLogger(__name__)

LONGEST_ID = 200
MOST_RETRIES = 1
# How long a claim relies on tickets before it looks into the store itself.
LOOK_SECONDS = 5.0


class QueueService:
    """Enqueue, claim, and say what came of it: `ack` or `nack`. Use it as a context manager.

    `url` names the broker: memory://, file:///…, postgresql://… or amqp://…. `store` is the file in which executions
    are kept; without it they live in memory. `retries` is 0 or 1: how often work that failed retryably is tried again.
    """

    def __init__(self, url: str = "memory://", *, retries: int = 0, store: Path | str | None = None) -> None:
        if retries not in range(MOST_RETRIES + 1):
            raise BadExecution(f"retries: must be 0 or {MOST_RETRIES}, not {retries!r}")
        self._url = url
        self._max_attempts = 1 + retries
        self.store = Store(None if store is None else Path(store))
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
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def enqueue(
        self,
        command: str,
        payload: Mapping[str, Any] | None = None,
        *,
        approval_id: str | None = None,
        execution_id: str | None = None,
    ) -> Execution:
        """Store an execution and have it run; with an id that is known it is the one that is there already.

        Raises `ExecutionConflict` when the id is taken by other content, and `BadExecution` for what cannot be stored.
        """
        content = dict(payload or {})
        wanted = _checked(
            command, content, approval_id, str(uuid4()) if execution_id is None else execution_id, self._max_attempts
        )
        execution, is_new = await self.store.add(wanted, digest(command, content, approval_id))
        if is_new:
            await self._publish(execution)
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
            if not stop.is_set() and (claim := await self._claim_without_ticket()) is not None:
                return claim
        return None

    async def ack(self, claim: Claim, result: Any = None) -> bool:
        """Store the result of a claim; False when it does not count, because that attempt is over.

        Raises `BadExecution` for a result that JSON cannot hold.
        """
        try:
            text = json.dumps(check_json(result), ensure_ascii=False, allow_nan=False)
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

    async def ended(self, execution_id: str, *, timeout: float | None = None) -> Execution:
        """Wait until an execution has ended and return it; raises `UnknownExecution`, and TimeoutError."""
        async with asyncio.timeout(timeout), self._changed:
            while not (execution := await self.store.get(execution_id)).status.is_final:
                await self._changed.wait()
            return execution

    async def depth(self) -> int:
        """Return how many tickets are with the broker."""
        return await self._opened().depth(self._queue.name)

    def _opened(self) -> Broker:
        assert self._broker is not None, "it is open"
        return self._broker

    async def _claim_without_ticket(self) -> Claim | None:
        """Take the oldest that waits: its ticket is lost, or was never sent because the broker was away."""
        for execution in await self.store.waiting():
            if (claim := await self.store.claim(execution.execution_id)) is not None:
                return claim
        return None

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
        for execution in await self.store.waiting():
            await self._publish(execution)

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


def _checked(
    command: str, payload: dict[str, Any], approval_id: str | None, execution_id: str, max_attempts: int
) -> Execution:
    _check_text("command", command)
    _check_text("execution_id", execution_id)
    if approval_id is not None:
        _check_text("approval_id", approval_id)
    try:
        check_json(payload)
    except (TypeError, ValueError) as error:
        raise BadExecution(f"payload: {error}") from None
    return Execution(
        execution_id=execution_id,
        command=command,
        payload=payload,
        approval_id=approval_id,
        status=Status.PENDING,
        attempt=0,
        max_attempts=max_attempts,
        result=None,
        error_message=None,
        error_code=None,
        created_at=datetime.now(UTC),
        started_at=None,
        finished_at=None,
    )


def _check_text(name: str, text: str) -> None:
    if not 1 <= len(text) <= LONGEST_ID:
        raise BadExecution(f"{name}: must have 1 to {LONGEST_ID} characters")
    try:
        check_text(text)
    except ValueError as error:
        raise BadExecution(f"{name}: {error}") from None
