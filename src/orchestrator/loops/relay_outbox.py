"""Publish what waits in the outbox: orders at once, tickets as far as the window of their queue allows."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from uuid import UUID

from common.broker import topology
from common.broker.base import Address, Broker, BrokerUnavailable, Outgoing, Unroutable
from common.protocol import ORCHESTRATOR, ControlEnvelope, MessageEnvelope, TicketEnvelope, encode
from common.safeguards import Safeguard, is_on
from orchestrator.database.pool import Pool, transaction
from orchestrator.loops.aside import Aside
from orchestrator.outbox import queries
from orchestrator.outbox.model import NewTicket, Waiting
from orchestrator.outbox.room import Room
from orchestrator.registry.offering import Offering

log = logging.getLogger(__name__)

ORDERS = 200
RETRY = timedelta(seconds=1)


class RelayOutbox:
    """Publishes with confirmation. A publish whose outcome is unknown is repeated; its receivers can tell."""

    def __init__(
        self,
        pool: Pool,
        broker: Broker,
        *,
        agent_types: Sequence[str],
        window: int,
        ttl: timedelta,
        ageing: timedelta,
        room: Room | None = None,
        offering: Offering | None = None,
    ) -> None:
        self._room = room or Room()
        self._offering = offering or Offering(pool)
        self._aside = Aside()
        self._pool = pool
        self._broker = broker
        self._agent_types = agent_types
        self._window = window
        self._ttl = ttl
        self._ageing = ageing

    async def run_once(self) -> int:
        orders, tickets = await self._take()
        try:
            sent = await self._relay_orders(orders)
        except Exception:
            await self._put_back([ticket.id for ticket in tickets])
            raise
        return sent + await self._relay_tickets(tickets)

    async def _take(self) -> tuple[list[Waiting], list[Waiting]]:
        offers = await self._offering.read()
        async with transaction(self._pool) as db:
            has_orders = await queries.begin_relay(db)
            orders = await queries.take_orders(db, limit=ORDERS, again_after=self._ttl) if has_orders else []
            tickets, room = await queries.take_tickets(
                db, self._agent_types, window=self._window, ttl=self._ttl, ageing=self._ageing, offers=offers
            )
            if not is_on(Safeguard.OUTBOX):
                await queries.remove(db, [ticket.id for ticket in tickets])
        taken = Counter(ticket.recipient for ticket in tickets)
        self._room.offers = offers
        for recipient, free in room.items():
            self._room.found(recipient, free=free, taken=taken[recipient])
        return orders, tickets

    def publish_soon(self, tickets: Sequence[NewTicket]) -> None:
        """Publish tickets that were stored as published, without being waited for.

        Those of which something goes wrong are due again when their time is over.
        """
        self._aside.start(self.publish_new(tickets), name="publish new tickets")

    async def close(self) -> None:
        """Return when what was to be published soon has been, or was left to the relay of somebody else."""
        await self._aside.close()

    async def publish_new(self, tickets: Sequence[NewTicket]) -> None:
        """Publish tickets that were stored as published; those that cannot be are left to `run_once`."""
        try:
            await self._broker.publish(*(_new_ticket(ticket, ttl=self._ttl) for ticket in tickets))
        except BrokerUnavailable as error:
            log.warning("tickets.left_to_relay", extra={"tickets": len(tickets), "reason": repr(error)})
            async with self._pool.acquire() as db:
                await queries.make_due(db, [ticket.task_id for ticket in tickets])
            with suppress(BrokerUnavailable):
                await self._make_queues()

    async def _put_back(self, ids: Sequence[int]) -> None:
        if ids:
            async with self._pool.acquire() as db:
                await queries.put_back(db, ids, after=RETRY)

    async def _relay_orders(self, orders: Sequence[Waiting]) -> int:
        readable = await self._build(orders, _order)
        done: list[int] = []
        try:
            done = await self._send_orders(readable)
        finally:
            if readable:
                async with self._pool.acquire() as db:
                    await queries.remove(db, done)
                await self._put_back([id for id, _ in readable if id not in done])
        return len(done)

    async def _send_orders(self, orders: Sequence[tuple[int, Outgoing]]) -> list[int]:
        if not orders:
            return []
        try:
            await self._broker.publish(*(message for _, message in orders))
        except Unroutable:
            for _, message in orders:
                await self._send_order(message)
        return [id for id, _ in orders]

    async def _send_order(self, message: Outgoing) -> None:
        try:
            await self._broker.publish(message)
        except Unroutable:
            # The agent has never been here, or its queue is gone: it cannot be told, and its lease is over anyway.
            log.warning("order.undeliverable", extra={"to": message.address.routing_key})

    async def _relay_tickets(self, tickets: Sequence[Waiting]) -> int:
        readable = await self._build(tickets, partial(_ticket, ttl=self._ttl))
        if not readable:
            return 0
        try:
            await self._broker.publish(*(message for _, message in readable))
        except BrokerUnavailable:
            await self._put_back([id for id, _ in readable])
            # When the broker is away this fails as the publish did.
            await self._make_queues()
            raise
        return len(readable)

    async def _make_queues(self) -> None:
        """Make again a queue that somebody removed."""
        await self._broker.declare(*map(topology.work_queue, self._agent_types))

    async def _build(self, rows: Sequence[Waiting], build: Callable[[Waiting], Outgoing]) -> list[tuple[int, Outgoing]]:
        """Return the messages of rows; a row of which none can be made is removed, so that it holds up no other."""
        built: list[tuple[int, Outgoing]] = []
        for row in rows:
            try:
                built.append((row.id, build(row)))
            except ValueError as error:
                log.exception("outbox.unreadable", extra={"outbox_id": row.id, "reason": str(error)})
                async with self._pool.acquire() as db:
                    await queries.remove(db, [row.id])
        return built


def _ticket(waiting: Waiting, *, ttl: timedelta) -> Outgoing:
    envelope = TicketEnvelope.model_validate(
        {
            **waiting.body,
            "from_agent": ORCHESTRATOR,
            "to_agent": waiting.recipient,
            "priority": waiting.priority,
        }
    )
    address = topology.work_address(waiting.recipient)
    # The broker knows only priorities, so what has aged is given a higher one there, or it would starve in the queue.
    return _outgoing(address, envelope, "work_request", priority=waiting.urgency, expires_after=ttl)


def _new_ticket(ticket: NewTicket, *, ttl: timedelta) -> Outgoing:
    envelope = TicketEnvelope(
        from_agent=ORCHESTRATOR,
        to_agent=ticket.recipient,
        priority=ticket.priority,
        trace_id=ticket.trace_id,
        request_id=ticket.request_id,
        payload=ticket.message,
    )
    address = topology.work_address(ticket.recipient)
    return _outgoing(address, envelope, "work_request", priority=ticket.priority, expires_after=ttl)


def _order(waiting: Waiting) -> Outgoing:
    envelope = ControlEnvelope.model_validate(
        {
            **waiting.body,
            "from_agent": ORCHESTRATOR,
            "to_agent": waiting.recipient,
            "priority": waiting.priority,
        }
    )
    return _outgoing(topology.control_address(UUID(waiting.recipient)), envelope, "control", priority=waiting.priority)


def _outgoing(
    address: Address, envelope: MessageEnvelope, kind: str, *, priority: int, expires_after: timedelta | None = None
) -> Outgoing:
    return Outgoing(
        address,
        encode(envelope),
        type=kind,
        priority=priority,
        message_id=envelope.message_id,
        expires_after=expires_after,
    )
