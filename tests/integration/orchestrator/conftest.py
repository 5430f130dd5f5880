"""The services of the orchestrator on a real ledger."""

from datetime import timedelta

import pytest

from common.broker import topology
from common.broker.memory import MemoryBroker
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.leases.service import LeaseService
from orchestrator.output.service import OutputService
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from tests.integration.orchestrator.on_credit import Orchestrator

LEASE = timedelta(seconds=30)
AGEING = timedelta(minutes=10)


@pytest.fixture
async def broker() -> MemoryBroker:
    """A broker with the queues that every orchestrator needs."""
    broker = MemoryBroker()
    await broker.declare(*topology.SHARED_QUEUES)
    return broker


@pytest.fixture
def tasks(pool: Pool) -> TaskService:
    return TaskService(pool, ageing=AGEING)


@pytest.fixture
def leases(pool: Pool) -> LeaseService:
    return LeaseService(pool, lease=LEASE, policy=RetryPolicy(base=timedelta(0)))


@pytest.fixture
def output(pool: Pool) -> OutputService:
    return OutputService(pool)


@pytest.fixture
def registry(pool: Pool) -> RegistryService:
    return RegistryService(pool, offline_after=timedelta(seconds=30))


@pytest.fixture
def at(pool: Pool) -> Orchestrator:
    return Orchestrator(pool)
