"""The use case of this folder: explain why a task waits."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from common.lifecycle import Status
from orchestrator.database.pool import Connection, Pool
from orchestrator.placement.model import Aim
from orchestrator.placement.rules import aim_of
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import Task
from orchestrator.tasks.service import TaskNotFound
from orchestrator.why import queries, rules
from orchestrator.why.agents import offered
from orchestrator.why.capacity import AgentCapacity, capacity_of
from orchestrator.why.model import Explanation, Facts


class Failures(NamedTuple):
    """What is wrong with the way to the agents; None where nothing is."""

    broker: str | None = None
    giving: str | None = None


class WhyService:
    """Explains from the ledger. `failures` asks this process whether its broker can be used and it can give work."""

    def __init__(self, pool: Pool, *, offline_after: timedelta, failures: Callable[[], Awaitable[Failures]]) -> None:
        self._pool = pool
        self._offline_after = offline_after
        self._failures = failures

    async def explain(self, task_id: UUID) -> Explanation:
        """Return whether a task waits and for what; raises `TaskNotFound`."""
        async with self._pool.acquire() as db, db.transaction(isolation="repeatable_read", readonly=True):
            task = await tasks.find(db, task_id)
            if task is None:
                raise TaskNotFound(task_id)
            facts = await self._read(db, task)
        if task.status is Status.PENDING:
            # Asked for last and outside of the snapshot: a broker that is away takes its time to say nothing.
            broker, giving = await self._failures()
            facts = replace(facts, broker_failure=broker, giving_failure=giving)
        return rules.explain(facts)

    async def capacity(
        self, requires: Mapping[str, Any], *, agent_type: str | None, work_type: str | None
    ) -> list[AgentCapacity]:
        """Return of each agent whether it could take work with these requirements now."""
        async with self._pool.acquire() as db:
            agents = await queries.agents(db, agent_type, offline_after=self._offline_after)
        return capacity_of(agents, Aim("", agent_type or "", None, requires, {}), work_type)

    async def _read(self, db: Connection, task: Task) -> Facts:
        now = await queries.now(db)
        if task.status.is_final:
            return Facts(task, now)
        agents = await queries.agents(db, task.agent_type, offline_after=self._offline_after)
        return Facts(
            task,
            now,
            aim=aim_of(task.agent_type, task.hints, task.confinement) if task.aim else None,
            agents=agents,
            ahead=await queries.ahead(db, task.task_id, types=offered(agents)),
            approval=await queries.approval(db, task.task_id) if task.status is Status.AWAITING_APPROVAL else None,
            refusals=await queries.refusals(db, task.task_id) if task.unstarted else (),
            order=None if task.ordering_key is None else await queries.order(db, task.task_id),
            limit=None if task.concurrency_key is None else await queries.limit(db, task.task_id),
        )
