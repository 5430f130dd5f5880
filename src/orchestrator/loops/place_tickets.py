"""Send tickets that not every agent of their pool may take to the own queues of agents that may."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable, Outgoing, Unroutable
from common.protocol import ORCHESTRATOR, TicketEnvelope, encode
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.leases import queries as leases
from orchestrator.leases.rules import REFUSAL_MEMORY, rest_after
from orchestrator.loops.agent_queues import give_queues
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.model import Waiting
from orchestrator.outbox.room import Room
from orchestrator.placement import queries
from orchestrator.placement.model import Aim, Host, Line
from orchestrator.placement.rules import anybody, place, place_again
from orchestrator.registry.offering import Offering

log = logging.getLogger(__name__)

AT_ONCE = 200
RETRY = timedelta(seconds=1)
FORGET_EVERY_SECONDS = 3600.0


class PlaceTickets:
    """Gives each ticket to the best agent that has room; what nobody can take waits and holds up nothing else."""

    def __init__(
        self,
        pool: Pool,
        broker: Broker,
        *,
        offline_after: timedelta,
        ttl: timedelta,
        ageing: timedelta,
        room: Room | None = None,
        offering: Offering | None = None,
    ) -> None:
        self._room = room or Room()
        self._offering = offering or Offering(pool, offline_after=offline_after)
        self._pool = pool
        self._broker = broker
        self._offline_after = offline_after
        self._ttl = ttl
        self._ageing = ageing
        self._forgot_at = time.monotonic()

    async def run_once(self) -> int:
        await self._forget()
        offers = await self._offering.read()
        async with self._pool.acquire() as db:
            due = await queries.due(db, offers)
        # As long as such tickets wait, each slot that is free again may be for them.
        self._room.aimed_wait = bool(due)
        if not due:
            return 0
        async with transaction(self._pool) as db:
            await outbox.one_relay_at_a_time(db)
            places, passed_over = await self._place(db, due)
        for waiting, agent_id in places:
            await self._send(waiting, agent_id)
        return len(places) + passed_over

    async def _place(self, db: Connection, due: Sequence[Line]) -> tuple[list[tuple[Waiting, UUID]], int]:
        """Give the best tickets of all lines, in their order, each to the best agent that has room for such work.

        Return with them how many were passed over, so that those behind them have their turn.
        """
        hosts = {host.agent_id: host for host in await queries.hosts(db, offline_after=self._offline_after)}
        aims = await self._aims(db, due)
        room = {line: len(place(aim, _able(hosts, line.work_type), AT_ONCE)) for line, aim in aims.items()}
        tickets = await queries.take(db, {line: free for line, free in room.items() if free}, ageing=self._ageing)
        refusals = await leases.refusals(db, [_task_id(waiting) for waiting in tickets]) if tickets else {}
        places: list[tuple[Waiting, UUID]] = []
        resting: dict[int, timedelta] = {}
        for waiting in tickets:
            line = Line(waiting.recipient, waiting.body["payload"]["work_type"])
            refused = refusals.get(_task_id(waiting), {})
            agent_id = place_again(aims[line], _able(hosts, line.work_type), refused, memory=REFUSAL_MEMORY)
            if agent_id is not None:
                hosts[agent_id] = replace(hosts[agent_id], free=hosts[agent_id].free - 1)
                places.append((waiting, agent_id))
            elif refused:
                resting[waiting.id] = rest_after(min(refused.values()))
        for rest in set(resting.values()):
            await outbox.put_back(db, [id for id, other in resting.items() if other == rest], after=rest)
        await queries.placed(db, [(waiting.id, agent_id) for waiting, agent_id in places], ttl=self._ttl)
        return places, len(resting)

    async def _aims(self, db: Connection, due: Sequence[Line]) -> dict[Line, Aim]:
        known = await queries.get(db, {line.aim for line in due if line.aim})
        for key in {line.aim for line in due if line.aim} - known.keys():
            log.error("placement.unknown_aim", extra={"aim": key})
        return {
            line: known[line.aim] if line.aim else anybody(line.pool)
            for line in due
            if not line.aim or line.aim in known
        }

    async def _send(self, waiting: Waiting, agent_id: UUID) -> None:
        try:
            await self._broker.publish(_ticket(waiting, agent_id, ttl=self._ttl))
        except Unroutable:
            # It has just registered and will make its queue, or it may not and this is for us to do.
            log.warning("placement.no_queue", extra={"agent_id": agent_id})
            await self._put_back(waiting)
            await give_queues(self._broker, {agent_id})
        except BrokerUnavailable:
            await self._put_back(waiting)
            raise

    async def _put_back(self, waiting: Waiting) -> None:
        async with self._pool.acquire() as db:
            await outbox.put_back(db, [waiting.id], after=RETRY)

    async def _forget(self) -> None:
        if time.monotonic() - self._forgot_at < FORGET_EVERY_SECONDS:
            return
        self._forgot_at = time.monotonic()
        async with self._pool.acquire() as db:
            await queries.forget(db)


def _task_id(waiting: Waiting) -> UUID:
    return UUID(waiting.body["payload"]["task_id"])


def _able(hosts: Mapping[UUID, Host], work_type: str) -> list[Host]:
    return [host for host in hosts.values() if host.offer.takes(work_type)]


def _ticket(waiting: Waiting, agent_id: UUID, *, ttl: timedelta) -> Outgoing:
    envelope = TicketEnvelope.model_validate(
        {
            **waiting.body,
            "from_agent": ORCHESTRATOR,
            "to_agent": str(agent_id),
            "priority": waiting.priority,
        }
    )
    return Outgoing(
        topology.own_work_address(agent_id),
        encode(envelope),
        type="work_request",
        priority=waiting.urgency,
        message_id=envelope.message_id,
        expires_after=ttl,
    )
