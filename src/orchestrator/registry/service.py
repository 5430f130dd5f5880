"""The use cases of the registry, one transaction each."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from common.messages import AgentStatus, StatusUpdate
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.model import NewOrder
from orchestrator.registry import queries
from orchestrator.registry.model import Agent, Standing
from orchestrator.registry.rules import standing_order

WORKING = frozenset({AgentStatus.ONLINE, AgentStatus.BUSY})
BACK = {"reason": "it was started again, which ends its drain"}


class RegistryService:
    """Knows the agents. One that has been silent for `offline_after` counts as offline."""

    def __init__(self, pool: Pool, *, offline_after: timedelta) -> None:
        self._pool = pool
        self._offline_after = offline_after

    async def record(self, updates: Sequence[StatusUpdate]) -> None:
        """Store heartbeats, in the order in which they came, and tell of agents that are new or changed."""
        latest = {update.agent_id: update for update in updates}
        async with self._pool.acquire() as db:
            as_before = await queries.beat(db, latest.values())
        if len(as_before) < len(latest):
            await self._take_in({one: update for one, update in latest.items() if one not in as_before})

    async def _take_in(self, latest: Mapping[UUID, StatusUpdate]) -> None:
        async with transaction(self._pool) as db:
            before = await queries.lock(db, list(latest))
            # Who was shut out is not known here any more, and so falls silent.
            latest = {one: update for one, update in latest.items() if one not in before or not before[one].shut_out}
            await queries.record(db, latest.values())
            back = [agent_id for agent_id, update in latest.items() if _is_back(update, before.get(agent_id))]
            await queries.end_drains(db, back)
            await self._remind(db, latest, before)
            told = [_news(update, before.get(agent_id)) for agent_id, update in latest.items()]
            resumed = [NewEvent(Kind.AGENT_RESUMED, str(agent_id), BACK, agent_id=agent_id) for agent_id in back]
            await events.append(db, *(event for event in told if event is not None), *resumed)

    async def _remind(
        self, db: Connection, updates: Mapping[UUID, StatusUpdate], before: Mapping[UUID, Standing]
    ) -> None:
        """Tell agents again what was ordered, where they cannot know it or do not do it."""
        unaware = [agent_id for agent_id, update in updates.items() if _is_unaware(update, before.get(agent_id))]
        if not unaware:
            return
        now = await queries.now(db)
        standings = await queries.standings(db, unaware)
        orders = ((agent_id, standing_order(standing, now=now)) for agent_id, standing in standings.items())
        await outbox.add_orders(db, [NewOrder(agent_id, order) for agent_id, order in orders if order is not None])

    async def list_agents(self, *, agent_type: str | None, status: AgentStatus | None) -> list[Agent]:
        """Return the agents that match."""
        async with self._pool.acquire() as db:
            return await queries.list_agents(
                db, agent_type=agent_type, status=status, offline_after=self._offline_after
            )

    async def is_online(self, agent_id: UUID) -> bool:
        """Say whether an agent was heard of lately."""
        async with self._pool.acquire() as db:
            return await queries.is_online(db, agent_id, offline_after=self._offline_after)

    async def mark_silent(self, *, limit: int) -> int:
        """Note agents that have fallen silent as offline, and return how many."""
        async with transaction(self._pool) as db:
            silent = await queries.mark_silent(db, offline_after=self._offline_after, limit=limit)
            await events.append(
                db,
                *(
                    NewEvent(Kind.AGENT_STATUS, "orchestrator", {"status": AgentStatus.OFFLINE}, agent_id=agent_id)
                    for agent_id in silent
                ),
            )
        return len(silent)


def _is_back(update: StatusUpdate, before: Standing | None) -> bool:
    """Say whether an agent that was drained has left and was started again, which ends the drain."""
    return before is not None and before.draining and update.started_at > before.started_at


def _is_unaware(update: StatusUpdate, before: Standing | None) -> bool:
    """Say whether an agent that is held back may not know it: a new process, or one that does not drain."""
    if before is None or update.status not in WORKING:
        return False
    held = before.draining or before.paused_until is not None or before.tripped_until is not None
    return held and (before.draining or update.started_at != before.started_at)


def _news(update: StatusUpdate, before: Standing | None) -> NewEvent | None:
    actor = str(update.agent_id)
    if before is None or before.started_at != update.started_at:
        about = {"agent_type": update.agent_type, "hostname": update.hostname, "slots": update.slots}
        return NewEvent(Kind.AGENT_REGISTERED, actor, about, agent_id=update.agent_id)
    if before.status is not update.status:
        return NewEvent(Kind.AGENT_STATUS, actor, {"status": update.status}, agent_id=update.agent_id)
    return None
