"""An orchestrator is ready only while what it sends through the broker comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest

from common.broker import topology
from common.broker.base import Consumer
from common.broker.memory import MemoryBroker
from common.loop import Health, Wake, keep_running
from orchestrator.database.pool import Pool
from orchestrator.dead_letters.service import DeadLetterService
from orchestrator.leases.service import LeaseService
from orchestrator.loops.consume import ConsumeQueue
from orchestrator.loops.consume_results import ConsumeResults
from orchestrator.loops.probe import Deaf, SendProbe
from orchestrator.loops.senders import Pools, Trusted
from orchestrator.policy.service import open_policy
from orchestrator.probes.service import ProbeService
from orchestrator.tasks.service import TaskService
from tests.eventually import eventually
from tests.factories import unknown

EVERY = timedelta(milliseconds=50)


@pytest.fixture
async def broker() -> MemoryBroker:
    broker = MemoryBroker()
    await broker.declare(*topology.REPLY_QUEUES)
    return broker


def results_consumer(pool: Pool, leases: LeaseService, probes: ProbeService, broker: MemoryBroker) -> ConsumeQueue:
    letters = DeadLetterService(
        pool, broker, TaskService(pool, ageing=timedelta(minutes=10)), open_policy(None), Wake()
    )
    return ConsumeQueue(broker, ConsumeResults(leases, probes, letters, broker), senders=Trusted(Pools(unknown)))


async def test_a_probe_that_came_back_proves_readiness_and_one_that_did_not_disproves_it(
    pool: Pool, leases: LeaseService, broker: MemoryBroker
) -> None:
    probes = ProbeService(pool, uuid4())
    consumer = results_consumer(pool, leases, probes, broker)
    probe = SendProbe(probes, broker, every=timedelta(seconds=1), consumers=[consumer])
    with pytest.raises(Deaf, match="no probe has come back"):
        await probe.check()

    async with consumer:
        await probe.run_once()
        await consumer.run_once()
        assert "came back" in await probe.check()

    async with pool.acquire() as db:
        await db.execute("UPDATE probe SET returned_at = now() - interval '5 seconds'")
    with pytest.raises(Deaf, match=r"5\.\d s ago"):
        await probe.check()


async def test_one_orchestrator_may_hear_the_probe_of_another(
    pool: Pool, leases: LeaseService, broker: MemoryBroker
) -> None:
    mine, other = ProbeService(pool, uuid4()), ProbeService(pool, uuid4())
    async with results_consumer(pool, leases, other, broker) as consumer:
        await SendProbe(mine, broker, every=EVERY, consumers=[]).run_once()
        await consumer.run_once()

    assert await mine.silence() is not None
    assert await other.silence() is None


class DeafAtFirst(MemoryBroker):
    """A fault: the first consumer is open and never hears anything."""

    opened = 0

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        self.opened += 1
        async with super().consume("nobody" if self.opened == 1 else queue, prefetch=prefetch) as consumer:
            yield consumer


async def test_a_process_that_hears_nothing_says_so_and_opens_its_consumers_anew(
    pool: Pool, leases: LeaseService, caplog: pytest.LogCaptureFixture
) -> None:
    broker = DeafAtFirst()
    await broker.declare(*topology.REPLY_QUEUES)
    probes = ProbeService(pool, uuid4())
    consumer = results_consumer(pool, leases, probes, broker)
    probe = SendProbe(probes, broker, every=EVERY, consumers=[consumer])
    consuming = asyncio.create_task(keep_running("consume", consumer.run_once, health=Health()))

    async def heard() -> bool:
        await probe.run_once()
        return await probes.silence() is not None

    # Slower than a consumer opens, or it would be closed again before it hears anything.
    await eventually(heard, every=0.3, timeout=30)

    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
    assert "orchestrator.deaf" in caplog.messages
    assert broker.opened >= 2
