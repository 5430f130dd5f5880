"""What the orchestrator can do, in one place: the face that the API and other programs in this process use."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID

from common.batching import Batcher
from common.broker.base import Broker
from common.broker.topology import SHARED_QUEUES
from common.ids import new_request_id, new_trace_id
from common.loop import Wake
from common.messages import AgentStatus, Resources, StatusUpdate, Stream, WorkResult
from common.policy.model import Work
from common.work import check_parameters
from orchestrator.database.pages import Listing
from orchestrator.dispatch.service import DispatchService
from orchestrator.events.model import Event
from orchestrator.events.service import EventService
from orchestrator.identities.model import ANYBODY, Caller
from orchestrator.leases.model import Leased
from orchestrator.leases.service import LeaseService
from orchestrator.output.model import Page
from orchestrator.output.service import OutputService
from orchestrator.policy.service import PolicyService, check_planned
from orchestrator.registry.model import Agent
from orchestrator.registry.service import RegistryService
from orchestrator.settings import OrchestratorSettings
from orchestrator.tasks.dispatch import (
    agent_type_for,
    attempts,
    check_keys,
    check_name,
    check_priority,
    check_wait,
)
from orchestrator.tasks.model import Identity, NewTask, Task, TaskFilter
from orchestrator.tasks.service import TaskService
from orchestrator.why.capacity import AgentCapacity
from orchestrator.why.model import Explanation
from orchestrator.why.service import WhyService

log = logging.getLogger(__name__)
# How long dispatches gather while there are several at the same time. Each statement holds the head of the events until
# its commit, so fewer and larger ones are faster, the more so with several orchestrators.
GATHER = timedelta(milliseconds=2)


class WorkOptions(TypedDict, total=False):
    """What may be said of work besides its type, parameters and priority; see `DispatchRequest`."""

    hints: Mapping[str, Any] | None
    request_id: UUID | None
    trace_id: UUID | None
    idempotent: bool
    max_attempts: int | None
    ordering_key: str | None
    concurrency_key: str | None
    concurrency_limit: int | None
    expires_after: timedelta | None
    approval_id: UUID | None
    name: str
    labels: Mapping[str, str] | None
    requested_by: Caller


class OrchestratorService:
    """Dispatches, follows and cancels work, knows the agents, and takes their results."""

    def __init__(
        self,
        settings: OrchestratorSettings,
        broker: Broker,
        *,
        tasks: TaskService,
        dispatch: DispatchService,
        output: OutputService,
        events: EventService,
        registry: RegistryService,
        leases: LeaseService,
        why: WhyService,
        policy: PolicyService,
        giver: Wake,
        send: Callable[[Sequence[Leased]], None],
    ) -> None:
        self._dispatch = dispatch
        self._send = send
        self._settings = settings
        self._broker = broker
        self._tasks = tasks
        self._output = output
        self._events = events
        self._registry = registry
        self._leases = leases
        self._why = why
        self._policy = policy
        self._giver = giver
        self._dispatches: Batcher[NewTask, Identity] = Batcher(
            self._store, limit=settings.dispatch_batch, gather=GATHER
        )
        self._stack = AsyncExitStack()

    async def connect(self) -> None:
        """Make sure that every queue exists, and begin to take dispatches. Raises `BrokerUnavailable`."""
        await self._broker.declare(*SHARED_QUEUES)
        await self._stack.enter_async_context(self._dispatches)

    async def disconnect(self) -> None:
        """Stop taking dispatches; those under way are answered or cancelled."""
        await self._stack.aclose()

    async def dispatch_work(
        self,
        task_id: UUID,
        work_type: str,
        parameters: Mapping[str, Any],
        priority: int = 3,
        **options: Unpack[WorkOptions],
    ) -> Identity:
        """Store work and have it done; returns the ids under which it is known, also when it was dispatched before.

        Raises `UnknownWorkType` and `InvalidField` (both ValueError), `RefusedByPolicy`, `ApprovalMismatch` for an
        approval that is not one for this, and `IdempotencyConflict` when an id is taken.
        """
        return await self.submit(self.task_of(task_id, work_type, parameters, priority, **options))

    def task_of(
        self,
        task_id: UUID,
        work_type: str,
        parameters: Mapping[str, Any],
        priority: int = 3,
        *,
        hints: Mapping[str, Any] | None = None,
        request_id: UUID | None = None,
        trace_id: UUID | None = None,
        idempotent: bool = False,
        max_attempts: int | None = None,
        ordering_key: str | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
        expires_after: timedelta | None = None,
        approval_id: UUID | None = None,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        requested_by: Caller = ANYBODY,
        is_repair: bool = False,
    ) -> NewTask:
        """Return checked work; raises `UnknownWorkType` and `InvalidField` (both ValueError), and `RefusedByPolicy`.

        `is_repair`: it belongs to a repair that was planned here, see `check_planned`.
        """
        check_priority(priority)
        work = self.work_of(work_type, parameters, hints or {}, is_repair=is_repair)
        check_keys(ordering_key, concurrency_key, concurrency_limit)
        check_wait(expires_after)
        check_name(name, labels or {})
        return NewTask(
            task_id=task_id,
            request_id=request_id or new_request_id(),
            trace_id=trace_id or new_trace_id(),
            work_type=work_type,
            agent_type=work.agent_type,
            parameters=parameters,
            hints=work.hints,
            priority=priority,
            idempotent=idempotent,
            max_attempts=attempts(idempotent=idempotent, wanted=max_attempts),
            ruling=self._policy.rule(work, is_repair=is_repair),
            approval_id=approval_id,
            ordering_key=ordering_key,
            concurrency_key=concurrency_key,
            concurrency_limit=concurrency_limit,
            expires_after=expires_after,
            name=name,
            labels=labels or {},
            requested_by=requested_by,
        )

    def work_of(
        self, work_type: str, parameters: Mapping[str, Any], hints: Mapping[str, Any], *, is_repair: bool = False
    ) -> Work:
        """Return what would be ruled about; raises `UnknownWorkType` and `InvalidField`."""
        check_planned(work_type, is_repair=is_repair)
        agent_type = self._determine_agent_type(work_type, hints)
        check_parameters(work_type, parameters)
        return Work(work_type, agent_type, parameters, hints)

    async def store_together(self, tasks: Sequence[NewTask]) -> Sequence[Identity | BaseException]:
        """Store checked work in one transaction, all or none, and have it done; see `dispatch_work`."""
        return await self._store(tasks)

    async def submit(self, task: NewTask) -> Identity:
        """Store checked work, together with what else arrives, and have it done; see `dispatch_work`."""
        return await self._dispatches.submit(task)

    async def submit_all(self, tasks: Sequence[NewTask]) -> Sequence[Identity | BaseException]:
        """Do what `submit` does for many; return for each, in order, its ids or why it was not stored.

        Raises what kept a whole transaction from being stored.
        """
        return await self._dispatches.submit_all(tasks)

    def _determine_agent_type(self, work_type: str, hints: Mapping[str, Any] | None = None) -> str:
        """Return the type of agent that runs a work type; raises `UnknownWorkType`, a ValueError."""
        return agent_type_for(work_type, hints or {}, self._settings.routes)

    async def _store(self, tasks: Sequence[NewTask]) -> Sequence[Identity | BaseException]:
        done = await self._dispatch.dispatch(tasks, by=ANYBODY.name)
        self._send(done.leased)
        if done.waits:
            self._giver.ring()
        if not log.isEnabledFor(logging.INFO):
            return done.answers
        for task, answer in zip(tasks, done.answers, strict=True):
            known = answer if isinstance(answer, Identity) else task
            log.info(
                "dispatch.answered" if known is answer else "dispatch.refused",
                extra={"trace_id": known.trace_id, "request_id": known.request_id, "task_id": known.task_id},
            )
        return done.answers

    async def get_task_status(self, task_id: UUID) -> tuple[Task, str]:
        """Return a task and the end of its output; raises `TaskNotFound`."""
        task = await self._tasks.get(task_id)
        return task, await self._output.tail(task)

    async def list_tasks(self, wanted: TaskFilter, *, limit: int) -> Listing[Task]:
        """Return a page of matching tasks, newest first."""
        return await self._tasks.newest(wanted, limit=limit)

    async def read_output(self, task_id: UUID, *, attempt: int | None, stream: Stream, offset: int, limit: int) -> Page:
        """Return a part of what a task wrote; raises `TaskNotFound`."""
        return await self._output.read(task_id, attempt=attempt, stream=stream, offset=offset, limit=limit)

    async def list_events(self, task_id: UUID, *, after: int, limit: int) -> list[Event]:
        """Return the events of a task, oldest first; raises `TaskNotFound`."""
        await self._tasks.get(task_id)
        return await self._events.of_task(task_id, after=after, limit=limit)

    async def explain_wait(self, task_id: UUID) -> Explanation:
        """Return whether a task waits and for what; raises `TaskNotFound`."""
        return await self._why.explain(task_id)

    async def agent_capacity(
        self, requires: Mapping[str, Any], *, agent_type: str | None = None, work_type: str | None = None
    ) -> list[AgentCapacity]:
        """Return of each agent whether it could take work with these requirements now."""
        return await self._why.capacity(requires, agent_type=agent_type, work_type=work_type)

    async def cancel_task(self, task_id: UUID, *, by: str = ANYBODY.name) -> None:
        """Cancel a task; raises `TaskNotFound`, and `TaskHasEnded`, a ValueError, for one that has ended otherwise."""
        await self._tasks.cancel(task_id, by=by)
        self._giver.ring()
        log.info("task.cancelled", extra={"task_id": task_id, "by": by})

    async def register_agent(self, agent_id: UUID, agent_type: str, status: str, resources: Mapping[str, Any]) -> None:
        """Note that an agent is there, as its heartbeat does."""
        update = StatusUpdate(
            agent_id=agent_id,
            agent_type=agent_type,
            status=AgentStatus(status),
            hostname="unknown",
            version="unknown",
            work_types=[],
            slots=1,
            resources=Resources.model_validate(resources),
            started_at=datetime.now(UTC),
        )
        await self._registry.record([update])

    async def list_agents(
        self, agent_type: str | None = None, status: AgentStatus | None = None, *, with_gone: bool = False
    ) -> list[Agent]:
        """Return the agents that match; `with_gone`: also those that have been silent for long, or were shut out."""
        return await self._registry.list_agents(agent_type=agent_type, status=status, with_gone=with_gone)

    async def is_agent_online(self, agent_id: UUID) -> bool:
        """Say whether an agent was heard of lately."""
        return await self._registry.is_online(agent_id)

    async def handle_work_result(self, work_result: WorkResult) -> None:
        """Store a result if it counts; one that came before, or too late, changes nothing."""
        await self._leases.accept([work_result])
        self._giver.ring()
