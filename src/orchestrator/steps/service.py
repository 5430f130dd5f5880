"""The use case of inner steps: store what agents report of them."""

from collections.abc import Sequence
from uuid import UUID

from common.messages import WorkStatus
from common.orders import StepsStored
from orchestrator.database.pool import Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.steps import queries
from orchestrator.steps.model import StoredStep
from orchestrator.steps.rules import answers_to, apart, reports_of


class StepService:
    """Stores inner steps of any attempt of the agent that reports them, whatever became of its lease: they happened."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def store(self, statuses: Sequence[WorkStatus]) -> list[tuple[UUID, StepsStored]]:
        """Store the steps in messages; what is known, or is of no attempt, changes nothing.

        Returns what each agent is to be told: to repeat the report of an end would change nothing any more.
        """
        under_way, ended = apart(reports_of(statuses))
        if under_way or ended:
            async with transaction(self._pool) as db:
                stored = [*await queries.store(db, under_way), *await queries.store(db, ended)]
                stored.sort(key=lambda step: (step.task_id, step.attempt, step.position, step.status.is_final))
                await events.append(db, *map(_stepped, stored))
        return answers_to(statuses)


def _stepped(step: StoredStep) -> NewEvent:
    data = {"position": step.position, "name": step.name, "status": step.status, "message": step.message}
    return NewEvent.by_agent(Kind.TASK_STEP, step, step.agent_id, step.attempt, data)
