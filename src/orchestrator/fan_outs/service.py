"""The use cases of fan-outs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack
from uuid import UUID, uuid5

from common.errors import ErrorCode, InvalidField, NotFound
from orchestrator.database.pool import Pool
from orchestrator.fan_outs.model import Dispatched, FanOut, Pace, Part, Selection, Selector, Target
from orchestrator.fan_outs.rules import batch_of, id_for, key_of, select
from orchestrator.placement.rules import AGENT_ID
from orchestrator.registry.service import RegistryService
from orchestrator.service import OrchestratorService, WorkOptions
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import Identity, NewTask, Task


class FanOutNotFound(NotFound):
    code = ErrorCode.TASK_NOT_FOUND

    def __init__(self, fan_out_id: UUID) -> None:
        super().__init__(f"No fan-out has the id {fan_out_id}.")


class FanOutService:
    """Dispatches the same work to each of several agents, and says how it stands."""

    def __init__(self, pool: Pool, service: OrchestratorService, registry: RegistryService) -> None:
        self._pool = pool
        self._service = service
        self._registry = registry

    async def dispatch(
        self,
        fan_out_id: UUID,
        work_type: str,
        parameters: Mapping[str, Any],
        priority: int,
        *,
        selector: Selector,
        pace: Pace,
        **options: Unpack[WorkOptions],
    ) -> Dispatched:
        """Store one task for each agent that the selector means, all or none.

        Sent again with the same content, it is the same fan-out, with the agents of the first time. Raises what
        `OrchestratorService.dispatch_work` raises, and `InvalidField` for a selector that means no agent.
        """
        template = self._service.task_of(fan_out_id, work_type, parameters, priority, **options)
        if template.concurrency_key is not None:
            raise InvalidField("concurrency_key", "is not allowed with 'on': 'batch' says how many run at a time")
        if template.approval_id is not None:
            raise InvalidField(
                "approval_id", "is not allowed with 'on': the task of each agent has an approval of its own"
            )
        if AGENT_ID in template.hints:
            raise InvalidField("hints.agent_id", "is not allowed with 'on', which says which agents")
        known = await self._tasks(template.task_id)
        selection = _again(known) if known else await self._select(template, selector)
        batch = batch_of(pace, len(selection.targets))
        made = [_task(template, target, batch, pace.stop_after_failures) for target in selection.targets]
        answers = [_identity(answer) for answer in await self._service.store_together(made)]
        parts = [
            Part(target, answer.task_id, answer.status, answer.approval_id)
            for target, answer in zip(selection.targets, answers, strict=True)
        ]
        return Dispatched(template.task_id, template.request_id, answers[0].trace_id, parts, selection.skipped)

    async def get(self, fan_out_id: UUID) -> FanOut:
        """Return a fan-out as it stands; raises `FanOutNotFound`."""
        found = await self._tasks(fan_out_id)
        if not found:
            raise FanOutNotFound(fan_out_id)
        return FanOut(fan_out_id, found)

    async def _tasks(self, fan_out_id: UUID) -> list[Task]:
        async with self._pool.acquire() as db:
            return await tasks.of_fan_out(db, key_of(fan_out_id))

    async def _select(self, template: NewTask, selector: Selector) -> Selection:
        agents = await self._registry.list_agents(agent_type=template.agent_type, status=None)
        return select(selector, agents, agent_type=template.agent_type, work_type=template.work_type)


def _task(template: NewTask, target: Target, batch: int, stop_after: int | None) -> NewTask:
    """Return the task of one agent. Its ruling is that of the template: no rule looks at the agent."""
    return replace(
        template,
        task_id=id_for(template.task_id, target.agent_id),
        request_id=uuid5(template.request_id, str(target.agent_id)),
        hints={**template.hints, AGENT_ID: str(target.agent_id)},
        concurrency_key=key_of(template.task_id),
        concurrency_limit=batch,
        stop_after=stop_after,
    )


def _again(known: Sequence[Task]) -> Selection:
    """Return the agents that a fan-out was sent to before."""
    return Selection([Target(UUID(str(task.hints[AGENT_ID])), task.agent_name or "") for task in known])


def _identity(answer: Identity | BaseException) -> Identity:
    if isinstance(answer, BaseException):
        raise answer
    return answer
