"""The use cases of people who run a fleet, one transaction each: pause an agent, drain it, resume it."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from common.errors import Conflict, ErrorCode, InvalidField, NotFound
from common.loop import Wake
from common.messages import AgentStatus
from common.orders import Drain, Pause, Resume
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.model import NewOrder
from orchestrator.registry import queries
from orchestrator.registry.model import Agent
from orchestrator.registry.rules import agents_meant, by_name, standing_order

log = logging.getLogger(__name__)

LONGEST_PAUSE = timedelta(days=7)


class AgentNotFound(NotFound):
    code = ErrorCode.AGENT_NOT_FOUND

    def __init__(self, name: UUID | str) -> None:
        super().__init__(f"No agent has the {'id' if isinstance(name, UUID) else 'name or id'} {name}.")


class AmbiguousName(Conflict):
    def __init__(self, name: str, meant: Sequence[UUID]) -> None:
        super().__init__(f"{name!r} is the name of {len(meant)} agents: {', '.join(map(str, meant))}. Give an id.")


class AgentWorks(Conflict):
    def __init__(self, agent: Agent) -> None:
        super().__init__(f"{agent.name} is {agent.status}: forget only an agent that is offline and runs nothing.")


class FleetService:
    """Holds agents back from work and lets them have it again. Each raises `AgentNotFound`.

    From when it returns, no claim of a held agent is granted; the agent itself is told in a moment.
    """

    def __init__(self, pool: Pool, giver: Wake, *, offline_after: timedelta) -> None:
        self._pool = pool
        self._giver = giver
        self._offline_after = offline_after

    async def pause(self, agent_id: UUID, *, until: datetime | timedelta, note: str, by: str) -> Agent:
        """Give an agent no work until then, or for so long; the pause ends by itself. What runs goes on."""
        async with transaction(self._pool) as db:
            await self._lock(db, agent_id)
            now = await queries.now(db)
            end = now + until if isinstance(until, timedelta) else until
            if not now < end <= now + LONGEST_PAUSE:
                raise InvalidField("until", "must be in the future, and at most a week ahead")
            await queries.pause(db, agent_id, until=end, by=by, note=note)
            await self._tell(db, agent_id)
            about = {"until": end.isoformat(), "note": note}
            agent = await self._get(db, agent_id)
            await events.append(db, NewEvent(Kind.AGENT_PAUSED, by, about, agent_id=agent_id))
        return self._done("agent.paused", agent)

    async def drain(self, agent_id: UUID, *, note: str, by: str) -> Agent:
        """Give an agent no more work; it leaves when what it runs is done. Ends when it is started again."""
        async with transaction(self._pool) as db:
            await self._lock(db, agent_id)
            await queries.drain(db, agent_id, by=by, note=note)
            agent = await self._get(db, agent_id)
            if agent.status is not AgentStatus.OFFLINE:
                # To one that is away the order would come when it is started again, and make it leave at once. If it
                # was only not heard, its next heartbeat gets it told.
                await self._tell(db, agent_id)
            await events.append(db, NewEvent(Kind.AGENT_DRAINING, by, {"note": note}, agent_id=agent_id))
        return self._done("agent.draining", agent)

    async def resume(self, agent_id: UUID, *, by: str) -> Agent:
        """Give an agent work again, whether it was paused, drained or tripped."""
        async with transaction(self._pool) as db:
            await self._lock(db, agent_id)
            await queries.resume(db, agent_id)
            await self._tell(db, agent_id)
            agent = await self._get(db, agent_id)
            await events.append(db, NewEvent(Kind.AGENT_RESUMED, by, agent_id=agent_id))
        return self._done("agent.resumed", agent)

    async def forget(self, agent_id: UUID, *, by: str) -> Agent:
        """Forget an agent that is offline; raises `AgentWorks` for another. Started again, it is back.

        Return the agent as it was.
        """
        async with transaction(self._pool) as db:
            await self._lock(db, agent_id)
            agent = await self._get(db, agent_id)
            if not await queries.forget(db, agent_id, offline_after=self._offline_after):
                raise AgentWorks(agent)
            await events.append(db, NewEvent(Kind.AGENT_FORGOTTEN, by, {"name": agent.name}, agent_id=agent_id))
        return self._done("agent.forgotten", agent)

    async def find(self, name: str) -> UUID:
        """Return the agent that a name or an id means; raises `AmbiguousName` for a name of several."""
        async with self._pool.acquire() as db:
            known = await queries.list_agents(db, offline_after=self._offline_after)
        meant = agents_meant(name, by_name(known))
        if not meant:
            raise AgentNotFound(name)
        if len(meant) > 1:
            raise AmbiguousName(name, [agent.agent_id for agent in meant])
        return meant[0].agent_id

    async def _lock(self, db: Connection, agent_id: UUID) -> None:
        if not await queries.lock(db, [agent_id]):
            raise AgentNotFound(agent_id)

    async def _tell(self, db: Connection, agent_id: UUID) -> None:
        """Order the agent to do what the ledger says now."""
        standing = (await queries.standings(db, [agent_id]))[agent_id]
        order: Pause | Drain | Resume = standing_order(standing, now=await queries.now(db)) or Resume()
        await outbox.add_orders(db, [NewOrder(agent_id, order)])

    async def _get(self, db: Connection, agent_id: UUID) -> Agent:
        found = await queries.list_agents(db, agent_id=agent_id, offline_after=self._offline_after)
        if not found:  # it was shut out before it ever registered
            raise AgentNotFound(agent_id)
        return found[0]

    def _done(self, what: str, agent: Agent) -> Agent:
        self._giver.ring()
        log.info(what, extra={"agent_id": agent.agent_id})
        return agent
