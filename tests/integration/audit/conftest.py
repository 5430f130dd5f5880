"""A ledger in which something happened, and somebody with every right to it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from common.retry import RetryPolicy
from orchestrator.database.pool import Connection, Pool, prepare
from orchestrator.leases.service import LeaseService
from orchestrator.output.service import OutputService
from orchestrator.tasks.service import TaskService
from tests.factories import make_chunk, make_new_task, make_result, make_status
from tests.integration.ledger import lease_to

AGEING = timedelta(minutes=10)
LEASE = timedelta(seconds=30)


async def work(pool: Pool, *, tasks: int = 4) -> None:
    """Let tasks be dispatched, claimed, write something and end: four events each."""
    output, leases = OutputService(pool), LeaseService(pool, lease=LEASE, policy=RetryPolicy())
    service = TaskService(pool, ageing=AGEING)
    for number in range(tasks):
        new, agent_id = make_new_task(parameters={"message": "ä\N{SNOWMAN}", "factor": 1e2}), uuid4()
        await service.dispatch([new], by="somebody")
        await lease_to(pool, new.task_id, agent_id=agent_id)
        await output.store([make_status(new.task_id, agent_id, make_chunk(0, f"hello {number}", offset=0))])
        await leases.accept([make_result(new.task_id, agent_id)])


@pytest.fixture
async def worked(pool: Pool) -> Pool:
    await work(pool)
    return pool


@pytest.fixture
async def owner(worked: Pool, ledger_url: str) -> AsyncIterator[Connection]:
    """A session of somebody whom no trigger stops."""
    connection = await asyncpg.connect(ledger_url)
    await prepare(connection)
    await connection.execute("SET session_replication_role = replica")
    yield connection
    await connection.close()
