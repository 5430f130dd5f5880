"""The use cases of the registry, one transaction each."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from common.messages import AgentStatus, StatusUpdate
from orchestrator.database.pool import Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.registry import queries
from orchestrator.registry.model import Agent, Before


class RegistryService:
    """Knows the agents. One that has been silent for `offline_after` counts as offline."""

    def __init__(self, pool: Pool, *, offline_after: timedelta) -> None:
        self._pool = pool
        self._offline_after = offline_after

    async def record(self, updates: Sequence[StatusUpdate]) -> None:
        """Store heartbeats, in the order in which they came, and tell of agents that are new or changed."""
        latest = {update.agent_id: update for update in updates}
        async with transaction(self._pool) as db:
            before = await queries.known(db, list(latest))
            await queries.record(db, list(latest.values()))
            told = [_news(update, before.get(agent_id)) for agent_id, update in latest.items()]
            await events.append(db, *(event for event in told if event is not None))

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


def _news(update: StatusUpdate, before: Before | None) -> NewEvent | None:
    actor = str(update.agent_id)
    if before is None or before.started_at != update.started_at:
        about = {"agent_type": update.agent_type, "hostname": update.hostname, "slots": update.slots}
        return NewEvent(Kind.AGENT_REGISTERED, actor, about, agent_id=update.agent_id)
    if before.status is not update.status:
        return NewEvent(Kind.AGENT_STATUS, actor, {"status": update.status}, agent_id=update.agent_id)
    return None
