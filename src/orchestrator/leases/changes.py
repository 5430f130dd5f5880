"""What one transaction about leases is going to write: collected while it judges, written at its end."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from common.lifecycle import Status
from orchestrator.database.pool import Connection
from orchestrator.dead_letters import queries as dead_letters
from orchestrator.dead_letters.events import noted
from orchestrator.dead_letters.model import NewLetter
from orchestrator.events import queries as events
from orchestrator.events.model import NewEvent
from orchestrator.keys import admission
from orchestrator.keys.model import Keys
from orchestrator.leases import events as told
from orchestrator.leases import queries
from orchestrator.leases.model import End
from orchestrator.leases.rules import Finish
from orchestrator.registry.breaker import record_outcomes
from orchestrator.registry.rules import BreakerPolicy, Outcome, agent_outcome, is_infrastructure
from orchestrator.tasks.model import Task


class Changes:
    """What one transaction is about to write. `failing` are agents whose last attempts failed."""

    def __init__(self, *, failing: Collection[UUID] = ()) -> None:
        self._failing = frozenset(failing)
        self.ends: list[End] = []
        self.requeued: list[tuple[End, datetime]] = []
        self.events: list[NewEvent] = []
        self.ended: list[Task] = []
        self.stopped: list[tuple[UUID, int, UUID]] = []
        self.stop_reports: list[End] = []
        self.letters: list[NewLetter] = []
        self.outcomes: dict[UUID, list[Outcome]] = {}

    def finish(self, task: Task, end: End, verdict: Finish) -> None:
        self.ends.append(end)
        self.events.append(told.ended(task, end, verdict.status))
        self.ended.append(task)
        self._note_outcome(task, end)
        if verdict.status is Status.FAILED and is_infrastructure(end.error_code):
            self.letters.append(told.dead_letter(task, end))

    def requeue(self, task: Task, end: End, at: datetime, *, is_repeated: bool = False) -> None:
        """Let a task wait again. A refusal that `is_repeated` says nothing new of its agent."""
        self.requeued.append((end, at))
        self.events.append(told.requeued(task, end, at))
        if not is_repeated:
            self._note_outcome(task, end)

    def _note_outcome(self, task: Task, end: End) -> None:
        outcome = agent_outcome(end.outcome, end.error_code, counts=end.counts, reason=end.error_message)
        # That an agent is well, and was so before, changes nothing.
        if outcome is not None and task.agent_id is not None and self._counts(outcome, task.agent_id):
            self.outcomes.setdefault(task.agent_id, []).append(outcome)

    def _counts(self, outcome: Outcome, agent_id: UUID) -> bool:
        return outcome.infrastructure or agent_id in self._failing or agent_id in self.outcomes

    async def write(self, db: Connection, *, breaker: BreakerPolicy) -> bool:
        """Write everything, the events last; say whether tasks wait now that may be given, or orders to be sent."""
        await queries.end(db, self.ends)
        await queries.report_stopped(db, self.stop_reports)
        await queries.requeue(db, self.requeued)
        keys = Keys.of(self.ended) | await admission.stopped(db, self.stopped)
        await admission.admit(db, keys)
        letters = await dead_letters.add(db, self.letters)
        tripped, orders = await record_outcomes(db, self.outcomes, policy=breaker)
        await events.append(db, *self.events, *map(noted, letters), *tripped)
        return bool(self.requeued or keys or orders)
