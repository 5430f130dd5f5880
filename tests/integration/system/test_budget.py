"""What a task costs: statements, commits, rows, bytes of WAL, messages, signatures, fsyncs and asyncio tasks.

The figures are those of the one path that a task takes, over RabbitMQ, with signed work. Whoever adds a statement, a
message or an fsync for each task raises a figure here, and says in its commit what that buys.
"""

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import asyncpg
import jwt
import pytest

from common.broker.base import Outgoing
from common.broker.rabbitmq import RabbitBroker
from orchestrator.database import pool as connections
from orchestrator.database.migrate import upgrade
from orchestrator.database.pool import Connection
from orchestrator.signing.directory import add_key
from orchestrator.signing.first_key import public_keys
from tests.eventually import eventually
from tests.integration.system.deployment import System, open_system, takers
from tests.services.postgres import start_embedded_postgres
from tests.services.rabbitmq_node import Node

pytestmark = pytest.mark.xdist_group("system/budget")

ROWS_OF_A_TASK = {"task": 1, "event": 4, "output_chunk": 1}
ROWS = (*ROWS_OF_A_TASK, "earlier_attempt", "outbox")
SOURCES = ("/src/orchestrator/", "/src/agents/", "/src/common/", "/uvicorn/")


@dataclass
class Costs:
    """What was spent, each kind by what it was spent on."""

    statements: Counter[str] = field(default_factory=Counter)
    commits: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)
    signed: int = 0
    verified: int = 0
    fsyncs: int = 0
    tasks: Counter[str] = field(default_factory=Counter)

    def of_each(self, kind: str, number: int) -> Counter[str]:
        """Return what is spent for each of so many tasks, without what comes by the clock."""
        spent: Counter[str] = getattr(self, kind)
        return Counter({what: round(count / number) for what, count in spent.items() if round(count / number)})


class Meter:
    """Counts in this process, which runs the orchestrator and the agent."""

    def __init__(self) -> None:
        self.costs = Costs()

    @contextmanager
    def spent(self) -> Iterator[Costs]:
        """Give what is spent in the block."""
        self.costs = costs = Costs()
        yield costs
        self.costs = Costs()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        prepare, publish, fsync, fdatasync = connections.prepare, RabbitBroker.publish, os.fsync, os.fdatasync
        sign, verify = jwt.PyJWS.encode, jwt.PyJWS.decode

        async def prepare_and_note(connection: Connection) -> None:
            await prepare(connection)
            connection.add_query_logger(Session(self).note)

        async def publish_and_note(broker: RabbitBroker, *messages: Outgoing) -> None:
            self.costs.messages.update(message.type for message in messages)
            await publish(broker, *messages)

        def note_sync(sync: Any) -> Any:
            def synced(handle: int) -> None:
                self.costs.fsyncs += 1
                sync(handle)

            return synced

        def note_signed(*args: Any, **options: Any) -> Any:
            self.costs.signed += 1
            return sign(*args, **options)

        def note_verified(*args: Any, **options: Any) -> Any:
            self.costs.verified += 1
            return verify(*args, **options)

        patch.setattr(connections, "prepare", prepare_and_note)
        patch.setattr(RabbitBroker, "publish", publish_and_note)
        patch.setattr(os, "fsync", note_sync(fsync))
        patch.setattr(os, "fdatasync", note_sync(fdatasync))
        patch.setattr(jwt.PyJWS, "encode", note_signed)
        patch.setattr(jwt.PyJWS, "decode", note_verified)

    def new_task(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
        code = getattr(work, "cr_code", None)
        if code is not None and any(source in code.co_filename for source in SOURCES):
            self.costs.tasks[code.co_qualname] += 1
        return asyncio.Task(work, loop=loop, **options)


class Session:
    """Counts what is asked over one connection; what is asked outside of a transaction commits by itself."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._in_transaction = False

    def note(self, query: Any) -> None:
        text, costs = " ".join(query.query.split()), self._meter.costs
        if text.startswith("BEGIN"):
            self._in_transaction = True
        elif text.startswith(("COMMIT", "ROLLBACK")):
            self._in_transaction = False
            costs.commits[text] += 1
        elif not self._in_transaction:
            costs.commits[text] += 1
        costs.statements[text] += 1


@dataclass
class Measured:
    system: System
    meter: Meter
    url: str

    async def rows(self) -> Counter[str]:
        db = await asyncpg.connect(self.url)
        try:
            return Counter({table: await db.fetchval(f"SELECT count(*) FROM {table}") for table in ROWS})
        finally:
            await db.close()

    async def wal(self) -> int:
        """Return how many bytes of WAL were written since the server started."""
        db = await asyncpg.connect(self.url)
        try:
            written: int = await db.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        finally:
            await db.close()
        return int(written)


@pytest.fixture(scope="module")
async def measured(rabbitmq: Node, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Measured]:
    """An orchestrator and an agent with signed work, in this process, on a PostgreSQL that nothing else writes to."""
    folder = tmp_path_factory.mktemp("budget")
    meter, postgres = Meter(), await start_embedded_postgres(durable=False)
    add_key(folder / "keys", signs_from=datetime.now(UTC))
    (folder / "trusted.pem").write_bytes(public_keys(folder / "keys"))
    url = await postgres.create_database()
    await upgrade(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIFFON_SIGNATURES", "required")
        meter.install(patch)
        asyncio.get_running_loop().set_task_factory(meter.new_task)  # type: ignore[arg-type]
        async with open_system(rabbitmq.new_vhost_url(), url, folder, signing_keys_dir=folder / "keys") as system:
            await system.start_agent(
                signatures="required", trusted_keys=folder / "trusted.pem", slots=64, heartbeat_seconds=10
            )
            await eventually(lambda: takers(system.client))
            yield Measured(system, meter, url)
    asyncio.get_running_loop().set_task_factory(None)
    postgres.stop()


class Load(NamedTuple):
    """How tasks are dispatched: so many in all, so many in a call, by so many callers at the same time."""

    tasks: int
    in_a_call: int
    callers: int


IDLE, SINGLE, BULK = Load(30, 1, 1), Load(640, 1, 32), Load(500, 500, 1)


class Share(NamedTuple):
    """The most that each of many tasks may cost. `others`: of messages, signatures made and verified, and fsyncs."""

    statements: float
    commits: float
    others: float
    tasks: int
    wal: int


async def run(system: System, load: Load) -> None:
    """Have tasks done; each caller waits for the ends of those of its call, as the events tell them."""
    ended: defaultdict[UUID | None, asyncio.Event] = defaultdict(asyncio.Event)

    async def follow() -> None:
        async for event in system.client.watch(types=["task.completed"], after=0):
            ended[event.task_id].set()

    async def call() -> None:
        for _ in range(load.tasks // load.in_a_call // load.callers):
            ids = [uuid4() for _ in range(load.in_a_call)]
            works = [{"task_id": str(one), "work_type": "echo", "parameters": {"message": "x"}} for one in ids]
            if load.in_a_call == 1:
                await system.client.hand_in(works[0])
            else:
                await system.client.dispatch_batch(works)
            for one in ids:
                await ended[one].wait()

    following = asyncio.create_task(follow())
    await asyncio.gather(*(call() for _ in range(load.callers)))
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def spent_by(measured: Measured, load: Load) -> tuple[Costs, Counter[str], float]:
    """Return what tasks cost, the rows that they leave, and the bytes of WAL of each; a few before only warm up."""
    await run(measured.system, load._replace(tasks=max(load.in_a_call * load.callers, load.tasks // 4)))
    rows, wal = await measured.rows(), await measured.wal()
    with measured.meter.spent() as costs:
        await run(measured.system, load)
    return costs, await measured.rows() - rows, (await measured.wal() - wal) / load.tasks


async def test_a_task_alone_costs_two_statements_and_one_for_its_subscriber(measured: Measured) -> None:
    costs, rows, wal = await spent_by(measured, IDLE)

    each = partial(costs.of_each, number=IDLE.tasks)
    assert sorted(text.split()[1] for text in each("statements")) == ["held", "new", "page"], each("statements")
    assert each("messages") == {"work_request": 1, "work_results": 1, "control": 1}
    assert each("commits") == each("statements")
    assert [round(count / IDLE.tasks) for count in (costs.signed, costs.verified, costs.fsyncs)] == [1, 1, 1]
    assert each("tasks").total() <= 4, each("tasks")
    assert {table: count / IDLE.tasks for table, count in rows.items()} == ROWS_OF_A_TASK
    assert wal < 7_000


def without_reads_of_the_feed(statements: Counter[str]) -> Counter[str]:
    """Return the statements that are made for the tasks, also when nothing follows the events."""
    return Counter({text: count for text, count in statements.items() if not text.startswith("WITH page")})


@pytest.mark.parametrize(
    ("load", "most"),
    [
        # On a quiet machine it is half of this; alone it is 2 statements, which the test above compares one by one.
        (SINGLE, Share(statements=0.5, commits=0.4, others=0.25, tasks=2, wal=6_000)),
        (BULK, Share(statements=0.4, commits=0.3, others=0.1, tasks=1, wal=6_000)),
    ],
    ids=["one task a call", "many tasks a call"],
)
async def test_tasks_share_statements_messages_signatures_and_fsyncs(
    measured: Measured, load: Load, most: Share
) -> None:
    costs, rows, wal = await spent_by(measured, load)

    assert without_reads_of_the_feed(costs.statements).total() / load.tasks < most.statements, costs.statements
    assert without_reads_of_the_feed(costs.commits).total() / load.tasks < most.commits
    others = max(*costs.messages.values(), costs.signed, costs.verified, costs.fsyncs)
    assert others / load.tasks < most.others, costs.messages
    assert costs.of_each("tasks", load.tasks).total() <= most.tasks, costs.tasks
    assert {table: count / load.tasks for table, count in rows.items()} == ROWS_OF_A_TASK
    assert wal < most.wal
