"""The services of the tests themselves: a PostgreSQL that can go away and come back, a RabbitMQ that evaluates."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.eventually import eventually
from tests.services.postgres import Postgres, start_embedded_postgres
from tests.services.rabbitmq_node import Node


@pytest.fixture
async def own_postgres() -> AsyncIterator[Postgres]:
    """A durable server for one test."""
    server = await start_embedded_postgres(durable=True)
    yield server
    server.stop()


async def test_what_was_committed_survives_a_server_that_vanishes(own_postgres: Postgres) -> None:
    url = await own_postgres.create_database()
    session = await asyncpg.connect(url)
    await session.execute("CREATE TABLE remembered (word text)")
    await session.execute("INSERT INTO remembered VALUES ('kept')")

    await own_postgres.stop_immediately()

    await eventually(session.is_closed)
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        await asyncpg.connect(url)

    await own_postgres.start_again()

    session = await asyncpg.connect(url)
    try:
        assert await session.fetchval("SELECT word FROM remembered") == "kept"
    finally:
        await session.close()


async def test_servers_run_beside_each_other_and_leave_nothing_behind(own_postgres: Postgres) -> None:
    other = await start_embedded_postgres(durable=False)
    try:
        await other.execute("CREATE TABLE only_there ()")
        with pytest.raises(asyncpg.UndefinedTableError):
            await own_postgres.execute("TABLE only_there")
    finally:
        data = other.data_folder
        other.stop()

    assert data is not None
    assert not data.parent.exists()
    await own_postgres.execute("SELECT 1")


async def test_sessions_end_as_an_administrator_ends_them(own_postgres: Postgres) -> None:
    url = await own_postgres.create_database()
    session = await asyncpg.connect(url)

    assert await own_postgres.terminate_sessions(url) == 1

    await eventually(session.is_closed)


async def test_a_node_evaluates_for_several_callers_at_the_same_time(rabbitmq: Node) -> None:
    evaluations = (asyncio.to_thread(rabbitmq.evaluate, f"timer:sleep(100), {n} * 2.") for n in range(4))

    assert await asyncio.gather(*evaluations) == ["0", "2", "4", "6"]
