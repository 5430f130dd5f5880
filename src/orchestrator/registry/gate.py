"""Who of those that ask for work may have it: part of the transaction that answers their claims."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from common.orders import Pause
from orchestrator.database.pool import Connection
from orchestrator.outbox.model import NewOrder
from orchestrator.registry import queries
from orchestrator.registry.rules import SHUT_OUT, Barred, BreakerPolicy, Free, Trial, judge_standing


class Gate:
    """Judges agents as they stand in the ledger, and remembers whom to tell that there is no work for them."""

    def __init__(self, verdicts: dict[UUID, Free | Trial | Barred], *, now: datetime, policy: BreakerPolicy) -> None:
        self._verdicts = verdicts
        self._now = now
        self._policy = policy
        self._refused: dict[UUID, Barred] = {}

    @classmethod
    async def open(cls, db: Connection, agent_ids: Collection[UUID], *, now: datetime, policy: BreakerPolicy) -> "Gate":
        """Look up how these agents stand."""
        standings = await queries.standings(db, list(agent_ids))
        verdicts = {agent_id: judge_standing(standings.get(agent_id), now=now) for agent_id in agent_ids}
        return cls(verdicts, now=now, policy=policy)

    async def refusal(self, db: Connection, agent_id: UUID) -> str | None:
        """Return why an agent may not have the task that is free for it; None when it may, and then it gets it."""
        if isinstance(self._verdicts[agent_id], Trial):
            if await queries.begin_trial(db, agent_id, pause=self._policy.pause):
                self._verdicts[agent_id] = self._on_trial()
                return None
            self._verdicts[agent_id] = self._on_trial()
        verdict = self._verdicts[agent_id]
        if not isinstance(verdict, Barred):
            return None
        self._refused[agent_id] = verdict
        return verdict.reason

    def is_shut_out(self, agent_id: UUID) -> bool:
        """Say whether an agent gets nothing at all, not even once more what it was given before."""
        verdict = self._verdicts[agent_id]
        return isinstance(verdict, Barred) and verdict.reason == SHUT_OUT

    def orders(self) -> list[NewOrder]:
        """Return what to tell those that were refused, so that they do not ask again and again."""
        return [NewOrder(agent_id, barred.order) for agent_id, barred in self._refused.items() if barred.order]

    def _on_trial(self) -> Barred:
        note = "one task shows whether the agent is well again"
        return Barred(
            f"the agent failed too often in a row, and {note}", Pause(until=self._now + self._policy.pause, note=note)
        )
