"""Publish the orders to agents that wait in the outbox."""

import logging
from collections.abc import Sequence
from datetime import timedelta

from common.broker import topology
from common.broker.base import Broker, Outgoing, Unroutable
from common.protocol import ORCHESTRATOR, ControlEnvelope, encode
from orchestrator.database.pool import Pool
from orchestrator.outbox import queries
from orchestrator.outbox.model import Waiting

log = logging.getLogger(__name__)

AT_ONCE = 200
URGENT = 5
RETRY = timedelta(seconds=1)
# An order of which nobody knows whether the broker has it is sent again after this: its publisher has died.
AGAIN_AFTER = timedelta(seconds=30)


class SendOrders:
    """Publishes with confirmation. A publish whose outcome is unknown is repeated; agents can tell."""

    def __init__(self, pool: Pool, broker: Broker) -> None:
        self._pool = pool
        self._broker = broker

    async def run_once(self) -> int:
        async with self._pool.acquire() as db:
            orders = await queries.take_orders(db, limit=AT_ONCE, again_after=AGAIN_AFTER)
        if not orders:
            return 0
        readable = await self._build(orders)
        done: list[int] = []
        try:
            done = await self._send(readable)
        finally:
            left = [id for id, _ in readable if id not in done]
            async with self._pool.acquire() as db:
                await queries.remove(db, done)
                await queries.put_back(db, left, after=RETRY)
        return len(done)

    async def _send(self, orders: Sequence[tuple[int, Outgoing]]) -> list[int]:
        try:
            await self._broker.publish(*(message for _, message in orders))
        except Unroutable:
            for _, message in orders:
                await self._send_one(message)
        return [id for id, _ in orders]

    async def _send_one(self, message: Outgoing) -> None:
        try:
            await self._broker.publish(message)
        except Unroutable:
            # The agent has never been here, or its queue is gone: it cannot be told, and its lease is over anyway.
            log.warning("order.undeliverable", extra={"to": message.address.routing_key})

    async def _build(self, orders: Sequence[Waiting]) -> list[tuple[int, Outgoing]]:
        """Return the messages of orders; one of which none can be made is removed, so that it holds up no other."""
        built: list[tuple[int, Outgoing]] = []
        for order in orders:
            try:
                built.append((order.id, _message(order)))
            except ValueError as error:
                log.exception("outbox.unreadable", extra={"outbox_id": order.id, "reason": str(error)})
                async with self._pool.acquire() as db:
                    await queries.remove(db, [order.id])
        return built


def _message(order: Waiting) -> Outgoing:
    envelope = ControlEnvelope.model_validate(
        {**order.body, "from_agent": ORCHESTRATOR, "to_agent": str(order.agent_id), "priority": URGENT}
    )
    return Outgoing(
        topology.control_address(order.agent_id),
        encode(envelope),
        type="control",
        priority=URGENT,
        message_id=envelope.message_id,
    )
