"""Whether those who claim may have what they claim: part of the transaction that answers their claims."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from orchestrator.database.pool import Connection
from orchestrator.placement import queries
from orchestrator.placement.model import Aim
from orchestrator.placement.rules import suits
from orchestrator.registry import queries as registry


class Bounds:
    """Knows the aims of some tasks and the labels of those who claim them."""

    def __init__(self, aims: Mapping[str, Aim], labels: Mapping[UUID, Mapping[str, Any]]) -> None:
        self._aims = aims
        self._labels = labels

    @classmethod
    async def open(cls, db: Connection, keys: Collection[str], agent_ids: Collection[UUID]) -> "Bounds":
        """Look up these aims and agents; nothing is asked when nothing aims at anybody."""
        wanted = {key for key in keys if key}
        if not wanted:
            return cls({}, {})
        return cls(await queries.get(db, wanted), await registry.labels(db, agent_ids))

    def refusal(self, key: str, agent_id: UUID) -> str | None:
        """Return why an agent may not have a task of this aim; None when it may."""
        if not key:
            return None
        aim = self._aims.get(key)
        if aim is not None and suits(aim, agent_id, self._labels.get(agent_id, {})):
            return None
        return "the task is for another agent, or needs what this one does not have"


async def aims_within(db: Connection, agent_ids: Mapping[UUID, Mapping[str, Any]]) -> dict[UUID, frozenset[str]]:
    """Return for each agent, given with its labels, the aims that it suits, and the empty one."""
    known = await queries.everything(db)
    return {
        agent_id: frozenset({"", *(aim.key for aim in known if suits(aim, agent_id, labels))})
        for agent_id, labels in agent_ids.items()
    }
