"""Whatever is put into the queues: what cannot be read ends in the dead letters with a reason, and work goes on."""

from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import httpx2
import hypothesis
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.settings import AgentSettings
from common.broker import topology
from common.broker.base import Address, Outgoing
from common.http_client import client_options
from common.ids import new_message_id
from common.protocol import MOST_REPLY_BYTES, WorkResultEnvelope, encode
from orchestrator.database.migrate import upgrade
from tests.eventually import eventually
from tests.fuzz.bounds import SEED, bounded
from tests.fuzz.envelopes import ACCEPTED, CONTROL, WORK, bodies, examples, is_readable
from tests.fuzz.running import Running, running_orchestrator
from tests.services.postgres import Postgres
from tests.services.rabbitmq_node import Node

T = TypeVar("T")
pytestmark = pytest.mark.xdist_group("fuzzed-queues")

MEGABYTE = 1024 * 1024
# What the interpreter, the caches and the fuzzer itself may take; a leak of every message would be far more.
GROWTH = 150 * MEGABYTE
LARGE = 4 * MEGABYTE

NOTED = "SELECT message_id, reason, queue FROM dead_letter WHERE message_id = ANY($1::text[])"

LETTERS = """
    SELECT reason, body_bytes, length(body) AS kept FROM dead_letter WHERE message_id = ANY($1::text[])
"""


class Fuzzed:
    """An orchestrator and an agent on one broker, and what was thrown at them."""

    def __init__(self, running: Running, database_url: str) -> None:
        self._running = running
        self._database_url = database_url
        [agent] = self.run(eventually(self._agents, timeout=20))
        self._agent_id = UUID(agent["agent_id"])

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._running.run(work)

    async def _agents(self) -> list[dict[str, str]]:
        async with httpx2.AsyncClient(**client_options(self._running.http)) as client:
            found: list[dict[str, str]] = (await client.get("/api/v1/agents")).json()
            return found

    def throw(self, thrown: list[tuple[str, bytes]]) -> list[str]:
        """Publish bodies to queues, have work done behind them, and return what became dead letters: all unreadable."""
        return self.run(self._throw(thrown))

    async def _throw(self, thrown: list[tuple[str, bytes]]) -> list[str]:
        messages = [Outgoing(self._address(queue), body, "fuzz", message_id=new_message_id()) for queue, body in thrown]
        await self._running.broker.publish(*messages)
        await self.work()
        unreadable = {
            str(message.message_id)
            for message, (queue, body) in zip(messages, thrown, strict=True)
            if not is_readable(queue, body)
        }
        await eventually(lambda: self._are_noted(unreadable), timeout=20)
        return sorted(unreadable)

    def letters(self, message_ids: list[str]) -> list[asyncpg.Record]:
        """Return the dead letters of some messages."""
        return self.run(self._letters(message_ids))

    async def _letters(self, message_ids: list[str]) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._database_url)
        try:
            return list(await connection.fetch(LETTERS, message_ids))
        finally:
            await connection.close()

    async def _are_noted(self, message_ids: set[str]) -> bool:
        connection = await asyncpg.connect(self._database_url)
        try:
            rows = await connection.fetch(NOTED, list(message_ids))
        finally:
            await connection.close()
        assert all(row["reason"] and row["queue"] for row in rows)
        assert {row["message_id"] for row in rows} == message_ids
        return True

    async def work(self) -> None:
        """Have a task done: its messages go through every queue."""
        async with httpx2.AsyncClient(timeout=20, **client_options(self._running.http)) as client:
            task_id = str(uuid4())
            work = {"task_id": task_id, "work_type": "echo", "parameters": {"message": "alive"}, "priority": 5}
            assert (await client.post("/api/v1/dispatch", json=work)).status_code == 200

            async def is_done() -> bool:
                status = (await client.get(f"/api/v1/status/{task_id}")).json()
                assert status["status"] == "completed", status
                return bool(status["output"] == "alive")

            await eventually(is_done, timeout=25)

    def _address(self, queue: str) -> Address:
        if queue == CONTROL:
            return topology.control_address(self._agent_id)
        if queue == WORK:
            return topology.work_address("infra", self._agent_id)
        return topology.reply_address(uuid4(), queue)


@contextmanager
def _fuzzed(broker_url: str, database_url: str, folder: Path) -> Iterator[Fuzzed]:
    agent = AgentSettings(state_dir=folder / "agent", slots=2, heartbeat_seconds=1, stop_grace_seconds=0)
    with running_orchestrator(database_url, broker_url, agent) as running:
        yield Fuzzed(running, database_url)


@pytest.fixture(scope="module", params=["memory", "amqp"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of a broker with nothing in it."""
    if request.param == "memory":
        return "memory://"
    rabbitmq: Node = request.getfixturevalue("rabbitmq")
    return rabbitmq.new_vhost_url()


@pytest.fixture(scope="module")
async def database_url(postgres: Postgres, broker_url: str) -> AsyncIterator[str]:
    """The URL of the ledger of what is thrown into one broker."""
    url = await postgres.create_database()
    await upgrade(url)
    yield url
    await postgres.drop_database(url)


@pytest.fixture(scope="module")
def fuzzed(broker_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """One orchestrator and one agent for all that is thrown into one broker."""
    with _fuzzed(broker_url, database_url, tmp_path_factory.mktemp("fuzzed")) as opened:
        yield opened


def test_what_cannot_be_read_is_a_dead_letter_with_a_reason_and_work_goes_on_in_flat_memory(fuzzed: Fuzzed) -> None:
    process = psutil.Process()
    before = process.memory_info().rss

    @hypothesis.seed(SEED)
    @bounded(10)
    @given(st.lists(st.tuples(st.sampled_from(sorted(ACCEPTED)), bodies), min_size=1, max_size=20))
    def throw(thrown: list[tuple[str, bytes]]) -> None:
        fuzzed.throw(thrown)

    print(f"CHIFFON_SEED={SEED}")
    throw()

    assert process.memory_info().rss - before < GROWTH


@pytest.mark.parametrize("queue", sorted(ACCEPTED))
def test_a_very_large_message_is_a_dead_letter_too(fuzzed: Fuzzed, queue: str) -> None:
    fuzzed.throw([(queue, b"x" * LARGE), (queue, b'{"type": "renew", "payload": "' + b"y" * LARGE)])


def test_a_good_message_beyond_the_limit_of_its_queue_is_a_dead_letter_that_keeps_the_beginning(fuzzed: Fuzzed) -> None:
    queue, limit = topology.RESULTS, MOST_REPLY_BYTES
    [good] = [encode(one) for one in examples() if isinstance(one, WorkResultEnvelope)]

    dead = fuzzed.throw([(queue, good.ljust(limit)), (queue, good.ljust(limit + 1))])

    [letter] = fuzzed.letters(dead)
    assert letter["reason"].endswith(f"it has {limit + 1} bytes, and at most {limit} are read")
    assert (letter["body_bytes"], letter["kept"]) == (limit + 1, min(limit + 1, MEGABYTE))
