"""The services that have to do with approvals, on a real ledger."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.loop import Wake
from common.policy.model import ApprovalDemand, Effect, Ruling, Work
from common.rest.identities import Role
from common.retry import RetryPolicy
from orchestrator.approvals.service import ApprovalService
from orchestrator.database.pool import Pool
from orchestrator.identities.model import Caller
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.dispatch import asked_terms
from orchestrator.tasks.model import NewTask
from orchestrator.tasks.service import TaskService
from tests.factories import make_caller, make_new_task
from tests.integration.ledger import register
from tests.integration.orchestrator.on_credit import gets

AGEING = timedelta(minutes=10)
POLICY_VERSION = "3-abc"


def risky(approvers: int = 1, *, version: str = POLICY_VERSION) -> Ruling:
    return Ruling(
        "risky", version, Effect.WRITE, ApprovalDemand(approvers=approvers, request_minutes=60, valid_minutes=5)
    )


def make_risky_task(asker: Caller, approvers: int = 1, **values: Any) -> NewTask:
    return make_new_task(ruling=risky(approvers), requested_by=asker, **values)


def make_approver(name: str) -> Caller:
    return make_caller(name, Role.APPROVER, Role.OPERATOR)


@pytest.fixture
def asker() -> Caller:
    return make_caller("asker", Role.OPERATOR, Role.APPROVER)


@pytest.fixture
def tasks(pool: Pool) -> TaskService:
    return TaskService(pool, ageing=AGEING)


@pytest.fixture
def leases(pool: Pool) -> LeaseService:
    return LeaseService(pool, lease=timedelta(seconds=30), policy=RetryPolicy(base=timedelta(0)))


def approval_service(pool: Pool, approvers: int = 1) -> ApprovalService:
    """Return a service that has so many people asked about any work."""

    def work_of(work_type: str, parameters: Mapping[str, Any], hints: Mapping[str, Any]) -> Work:
        return Work(work_type, "infra", parameters, hints)

    return ApprovalService(pool, work_of, asked_terms, lambda _work: risky(approvers), Wake())


@pytest.fixture
def approvals(pool: Pool) -> ApprovalService:
    return approval_service(pool)


async def approval_of(tasks: TaskService, task: NewTask) -> UUID:
    """Return the approval that a task waits for."""
    approval_id = (await tasks.get(task.task_id)).approval_id
    assert approval_id is not None
    return approval_id


async def on_the_way(pool: Pool) -> list[UUID]:
    """Return the tasks that may be given to agents, in the order in which they were dispatched."""
    rows = await pool.fetch("SELECT task_id FROM task WHERE status = 'pending' AND admitted ORDER BY dispatch_no")
    return [row["task_id"] for row in rows]


async def given(pool: Pool, agent_id: UUID | None = None, *, agent_type: str = "infra") -> list[UUID]:
    """Have an agent ask for tasks, and return those that it is given."""
    agent_id = agent_id or uuid4()
    await register(pool, agent_id, agent_type)
    return await gets(pool, agent_id, room=8)
