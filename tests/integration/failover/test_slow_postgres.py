"""PostgreSQL that answers slowly keeps its sessions; one that answers nothing loses them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from common.broker import postgres_queries, postgres_session, topology
from common.broker.base import Outgoing
from common.broker.postgres import open_postgres_broker
from common.postgres import Database
from orchestrator.database.notifications import listen
from orchestrator.database.pool import Pool, open_pool
from tests.eventually import eventually
from tests.services.postgres import Postgres

pytestmark = pytest.mark.xdist_group("failover_postgres")

QUEUE = topology.work_queue("slow", uuid4())
BACKEND = "SELECT pg_backend_pid()"


@pytest.fixture
async def two(own_ledger_url: str) -> AsyncIterator[Pool]:
    """A pool of two sessions."""
    async with open_pool(own_ledger_url, connections=2) as pool:
        yield pool


async def backends(pool: Pool) -> set[int]:
    async with pool.acquire() as one, pool.acquire() as other:
        return {await one.fetchval(BACKEND), await other.fetchval(BACKEND)}


async def test_a_statement_that_runs_out_of_time_costs_no_session(two: Pool) -> None:
    before = await backends(two)

    with pytest.raises(TimeoutError):
        async with two.acquire() as db:
            await db.execute("SELECT pg_sleep(60)", timeout=0.2)

    assert await backends(two) == before
    assert two.database.generation == 0, "nothing has to be recovered"


async def test_a_server_that_answers_nothing_and_closes_nothing_loses_every_session(
    own_postgres: Postgres, own_url: str
) -> None:
    database = Database(own_url, silence=timedelta(seconds=0.5))
    heard, told = asyncio.Event(), asyncio.Event()

    async def tell() -> None:
        told.set()

    with database.condemnations(tell):
        listening = asyncio.create_task(listen(database, "news", lambda _: heard.set()))
        await heard.wait()
        own_postgres.freeze()
        try:
            with pytest.raises(TimeoutError):
                await listening
        finally:
            own_postgres.thaw()

    assert told.is_set()


async def test_a_sweep_that_is_slow_keeps_what_the_bus_has_given_out(
    own_ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[object] = []
    sweep = postgres_queries.sweep

    async def counted(db: postgres_queries.Database, *, timeout: timedelta) -> None:
        try:
            await sweep(db, timeout=timeout)
        except TimeoutError as failure:
            swept.append(failure)
            raise

    async with (
        open_postgres_broker(own_ledger_url, name="slow") as broker,
        broker.consume(QUEUE.name, prefetch=1) as consumer,
    ):
        monkeypatch.setattr(postgres_queries, "sweep", counted)
        monkeypatch.setattr(postgres_session, "SWEEP_DEADLINE", timedelta(seconds=0.2))
        monkeypatch.setattr(postgres_session, "SWEEP_EVERY", timedelta(seconds=0.01))
        await broker.declare(QUEUE)
        await broker.publish(Outgoing(QUEUE.bindings[0], b"{}", type="work_request"))
        [delivery] = await consumer.receive()
        session = broker.generation
        blocking = await Database(own_ledger_url).connect()
        async with blocking.transaction():
            await blocking.execute("LOCK TABLE chiffon_broker.message IN ACCESS EXCLUSIVE MODE")
            await eventually(lambda: len(swept) >= 2)
        await blocking.close()

        await consumer.ack(delivery)
        assert broker.generation == session
