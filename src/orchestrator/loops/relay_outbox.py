"""Publish what waits in the outbox: orders at once, tickets as far as the window of their queue allows."""

import logging
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from common.broker import topology
from common.broker.base import Address, Broker, BrokerUnavailable, Outgoing, Unroutable
from common.protocol import ORCHESTRATOR, ControlEnvelope, MessageEnvelope, TicketEnvelope, encode
from orchestrator.database.pool import Pool, transaction
from orchestrator.outbox import queries
from orchestrator.outbox.model import Waiting

log = logging.getLogger(__name__)

ORDERS = 200
RETRY = timedelta(seconds=1)


class RelayOutbox:
    """Publishes with confirmation. A publish whose outcome is unknown is repeated; its receivers can tell."""

    def __init__(self, pool: Pool, broker: Broker, *, agent_types: Sequence[str], window: int, ttl: timedelta) -> None:
        self._pool = pool
        self._broker = broker
        self._agent_types = agent_types
        self._window = window
        self._ttl = ttl

    async def run_once(self) -> int:
        return await self._relay_orders() + await self._relay_tickets()

    async def _relay_orders(self) -> int:
        async with self._pool.acquire() as db:
            orders = await queries.take_orders(db, limit=ORDERS, again_after=self._ttl)
        done = []
        try:
            for order in orders:
                await self._send_order(order)
                done.append(order.id)
        finally:
            if orders:
                async with self._pool.acquire() as db:
                    await queries.remove(db, done)
                    await queries.put_back(db, [order.id for order in orders if order.id not in done], after=RETRY)
        return len(done)

    async def _send_order(self, order: Waiting) -> None:
        try:
            await self._broker.publish(_order(order))
        except Unroutable:
            # The agent has never been here, or its queue is gone: it cannot be told, and its lease is over anyway.
            log.warning("order.undeliverable", extra={"agent_id": order.recipient})

    async def _relay_tickets(self) -> int:
        async with transaction(self._pool) as db:
            await queries.one_relay_at_a_time(db)
            tickets = await queries.take_tickets(db, self._agent_types, window=self._window, ttl=self._ttl)
        if not tickets:
            return 0
        try:
            await self._broker.publish(*(_ticket(ticket, self._ttl) for ticket in tickets))
        except BrokerUnavailable:
            async with self._pool.acquire() as db:
                await queries.put_back(db, [ticket.id for ticket in tickets], after=RETRY)
            # A queue that somebody removed is made again; when the broker is away this fails as the publish did.
            await self._broker.declare(*map(topology.work_queue, self._agent_types))
            raise
        return len(tickets)


def _ticket(waiting: Waiting, ttl: timedelta) -> Outgoing:
    envelope = TicketEnvelope.model_validate(
        {
            **waiting.body,
            "from_agent": ORCHESTRATOR,
            "to_agent": waiting.recipient,
            "priority": waiting.priority,
        }
    )
    return _outgoing(topology.work_address(waiting.recipient), envelope, "work_request", expires_after=ttl)


def _order(waiting: Waiting) -> Outgoing:
    envelope = ControlEnvelope.model_validate(
        {
            **waiting.body,
            "from_agent": ORCHESTRATOR,
            "to_agent": waiting.recipient,
            "priority": waiting.priority,
        }
    )
    return _outgoing(topology.control_address(UUID(waiting.recipient)), envelope, "control")


def _outgoing(
    address: Address, envelope: MessageEnvelope, kind: str, *, expires_after: timedelta | None = None
) -> Outgoing:
    return Outgoing(
        address,
        encode(envelope),
        type=kind,
        priority=envelope.priority,
        message_id=envelope.message_id,
        expires_after=expires_after,
    )
