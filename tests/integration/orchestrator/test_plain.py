"""What most dispatches and results need is one statement, and what happens in between changes no promise."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import ModuleType
from typing import Any, ParamSpec, TypeVar
from uuid import UUID, uuid4

import pytest

from common.lifecycle import Status
from common.messages import ResultStatus
from common.retry import RetryPolicy
from orchestrator.audit.verify import verify
from orchestrator.database.pool import Connection, Pool, open_pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.leases import finish_queries, queries
from orchestrator.leases.rules import Duplicate, Finish, Requeue, Stale
from orchestrator.leases.service import LeaseService
from orchestrator.output.service import OutputService
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from tests.eventually import eventually
from tests.factories import (
    make_chunk,
    make_heartbeat,
    make_new_task,
    make_renewal,
    make_result,
    make_status,
)
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import events_of, kinds_of
from tests.integration.orchestrator.on_credit import Agent, Orchestrator, gets
from tests.integration.orchestrator.statements import open_counting_pool
from tests.integration.orchestrator.test_leases import running
from tests.integration.orchestrator.test_shut_out import disable, named

P = ParamSpec("P")
R = TypeVar("R")

TOUCH = "UPDATE task SET updated_at = now() WHERE task_id = $1"
HOLD = "SELECT FROM task WHERE task_id = $1 FOR UPDATE"
SEND = """
    INSERT INTO output_chunk (task_id, attempt, stream, byte_offset, number, size, text)
    VALUES ($1, 1, 'stdout', 0, 0, 5, 'hello')
"""
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
# What the orchestrator that gave the lease remembers, another one reads.
GIVEN_BY = pytest.mark.parametrize("by_another", [False, True], ids=["remembered", "read"])


@pytest.fixture(autouse=True)
async def chained(pool: Pool) -> AsyncIterator[None]:
    """Whatever a test does, the log that it leaves proves itself."""
    yield
    async with pool.acquire() as db:
        assert (await verify(db)).finding is None


@pytest.fixture
def other(pool: Pool) -> LeaseService:
    """Another orchestrator on the same ledger."""
    return LeaseService(pool, lease=LEASE, policy=RetryPolicy())


def before(
    patch: pytest.MonkeyPatch,
    place: ModuleType,
    name: str,
    happens: Callable[[], Awaitable[object]],
    *,
    once: bool = True,
) -> None:
    """Have something happen between the read and the guarded write of this name, in the event loop of the caller: an
    orchestrator that other tests share runs in a loop of its own, and writes, too.
    """
    write, loop = getattr(place, name), asyncio.get_running_loop()

    async def wrapped(db: Connection, *args: Any, **options: Any) -> Any:
        if asyncio.get_running_loop() is not loop:
            return await write(db, *args, **options)
        if once:
            patch.setattr(place, name, write)
        await happens()
        return await write(db, *args, **options)

    patch.setattr(place, name, wrapped)


async def waits(pool: Pool) -> bool:
    async with pool.acquire() as db:
        return bool(await db.fetchval(WAITS))


async def test_a_dispatch_to_an_agent_with_credit_is_one_statement_and_a_plain_result_one_or_two(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, work = Agent(slots=8), [make_new_task(max_attempts=2) for _ in range(4)]
    async with open_counting_pool(ledger_url, monkeypatch) as (pool, statements):
        one, other = Orchestrator(pool), Orchestrator(pool)
        await one.hears(agent)
        for task in work:  # the first time the driver asks what the types are
            with statements.counted() as dispatching:
                assert len((await one.dispatch(task)).leased) == 1
        finishings = []
        for task, taker in zip(work, (other, other, one, one), strict=True):
            with statements.counted() as finishing_one:
                await agent.reports(
                    taker, make_result(task.task_id, agent.agent_id, chunks=[make_chunk(0, "hello", offset=0)])
                )
            finishings.append(finishing_one)
        again = make_new_task(max_attempts=2)
        await one.dispatch(again)
        with statements.counted() as repeating:
            await one.leases.accept(
                [make_result(again.task_id, agent.agent_id, status=ResultStatus.FAILED, retryable=True)]
            )

    assert [statement.split()[0] for statement in dispatching] == ["WITH"]
    assert [statement.split()[0] for statement in finishings[1]] == ["SELECT", "WITH"]
    assert [statement.split()[0] for statement in finishings[3]] == ["WITH"]
    assert repeating[1] == "BEGIN;"  # so that the others would be seen
    assert repeating[-1] == "COMMIT;"


async def test_of_two_orchestrators_that_have_both_seen_a_task_wait_one_leases_it(
    tasks: TaskService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    before(monkeypatch, queries, "lease", asyncio.Barrier(2).wait, once=False)

    both = await asyncio.gather(lease_to(pool, task.task_id), lease_to(pool, task.task_id))

    [leased] = [one for leases in both for one in leases]
    assert leased.attempt == 1
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]


async def test_a_result_that_two_orchestrators_got_counts_once(
    tasks: TaskService, leases: LeaseService, other: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, agent_id = await running(tasks, pool)
    result = make_result(task_id, agent_id, chunks=[make_chunk(0, "hello", offset=0)])
    before(monkeypatch, finish_queries, "finish", asyncio.Barrier(2).wait, once=False)

    verdicts = await asyncio.gather(leases.accept([result]), other.accept([result]))

    assert sorted(type(verdict).__name__ for [verdict] in verdicts) == ["Duplicate", "Finish"]
    assert (await kinds_of(pool, task_id))[2:] == [Kind.TASK_OUTPUT, Kind.TASK_COMPLETED]


async def test_a_task_that_is_cancelled_before_its_lease_is_written_is_not_leased(
    tasks: TaskService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    before(monkeypatch, queries, "lease", lambda: tasks.cancel(task.task_id, by="caller"))

    assert await lease_to(pool, task.task_id) == []

    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CANCELLED]


@GIVEN_BY
async def test_a_task_that_is_cancelled_before_its_result_is_written_stays_cancelled(
    tasks: TaskService,
    leases: LeaseService,
    other: LeaseService,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    by_another: bool,
) -> None:
    task_id, agent_id = await running(tasks, pool)
    result = make_result(task_id, agent_id, chunks=[make_chunk(0, "hello", offset=0)])
    before(monkeypatch, finish_queries, "finish", lambda: tasks.cancel(task_id, by="caller"))

    [verdict] = await (other if by_another else leases).accept([result])

    assert verdict == Stale("the attempt has ended: cancelled")
    assert (await tasks.get(task_id)).status is Status.CANCELLED
    assert (await kinds_of(pool, task_id))[2:] == [Kind.TASK_CANCELLED, Kind.TASK_OUTPUT, Kind.TASK_RESULT_REFUSED]


async def test_an_agent_that_is_shut_out_before_its_lease_is_written_gets_nothing(
    tasks: TaskService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, agent_id = make_new_task(), await named(pool, "web-1")
    await tasks.dispatch([task], by="caller")
    before(monkeypatch, queries, "lease", lambda: disable(pool, agent_id))

    assert await lease_to(pool, task.task_id, agent_id=agent_id) == []

    assert (await tasks.get(task.task_id)).status is Status.PENDING


async def test_an_agent_that_is_paused_before_its_lease_is_written_gets_nothing(
    tasks: TaskService, registry: RegistryService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, agent_id = make_new_task(), uuid4()
    await tasks.dispatch([task], by="caller")
    await registry.record([make_heartbeat(agent_id)])

    async def pause() -> None:
        async with pool.acquire() as db:
            await db.execute("UPDATE agent SET paused_until = now() + interval '1 hour', paused_by = 'ann'")

    before(monkeypatch, queries, "lease", pause)

    assert await gets(pool, agent_id) == []

    assert (await tasks.get(task.task_id)).status is Status.PENDING


@GIVEN_BY
async def test_a_result_of_an_agent_that_is_shut_out_before_it_is_written_does_not_count(
    tasks: TaskService,
    leases: LeaseService,
    other: LeaseService,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    by_another: bool,
) -> None:
    task, agent_id = make_new_task(), await named(pool, "web-1")
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)
    before(monkeypatch, finish_queries, "finish", lambda: disable(pool, agent_id))

    [verdict] = await (other if by_another else leases).accept([make_result(task.task_id, agent_id)])

    assert verdict == Stale("the agent's identity was disabled")
    assert (await tasks.get(task.task_id)).status is Status.RUNNING


@GIVEN_BY
async def test_a_result_of_an_agent_that_has_failed_before_it_is_written_says_that_it_is_well_again(
    tasks: TaskService,
    leases: LeaseService,
    other: LeaseService,
    registry: RegistryService,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    by_another: bool,
) -> None:
    task_id, agent_id = await running(tasks, pool)
    await registry.record([make_heartbeat(agent_id)])

    async def fail() -> None:
        async with pool.acquire() as db:
            await db.execute("UPDATE agent SET failures_in_row = 1")

    before(monkeypatch, finish_queries, "finish", fail)

    [verdict] = await (other if by_another else leases).accept([make_result(task_id, agent_id)])

    assert verdict == Finish(Status.COMPLETED)
    async with pool.acquire() as db:
        assert await db.fetchval("SELECT failures_in_row FROM agent WHERE agent_id = $1", agent_id) == 0


async def test_of_the_results_of_two_attempts_in_one_batch_only_the_living_one_counts_and_nothing_is_told_twice(
    tasks: TaskService, leases: LeaseService, other: LeaseService, pool: Pool
) -> None:
    task, first, second = make_new_task(max_attempts=2), uuid4(), uuid4()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=first)
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET lease_expires_at = now() - interval '1 second'")
    await other.put_back([task.task_id], at_once=True)
    await lease_to(pool, task.task_id, agent_id=second)
    chunk = make_chunk(0, "hello", offset=0)
    stale = make_result(task.task_id, first, chunks=[chunk])
    counts = make_result(task.task_id, second, attempt=2, chunks=[chunk])

    verdicts = await leases.accept([stale, counts])

    assert verdicts == [Stale("the attempt has ended: lost"), Finish(Status.COMPLETED)]
    told = [(event.kind, event.attempt) for event in await events_of(pool) if event.task_id == task.task_id]
    assert sorted(told[-4:]) == [
        (Kind.TASK_COMPLETED, 2),
        (Kind.TASK_OUTPUT, 1),
        (Kind.TASK_OUTPUT, 2),
        (Kind.TASK_RESULT_REFUSED, 1),
    ]
    assert len(told) == 4 + 4


async def test_what_waits_for_a_row_goes_on_with_the_row_as_it_is_then(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task, agent_id = make_new_task(), uuid4()
    await tasks.dispatch([task], by="caller")
    async with transaction(pool) as db:
        await db.execute(TOUCH, task.task_id)
        leasing = asyncio.create_task(lease_to(pool, task.task_id, agent_id=agent_id))
        await eventually(lambda: waits(pool))
    leased = await leasing
    async with transaction(pool) as db:
        await db.execute(TOUCH, task.task_id)
        accepting = asyncio.create_task(leases.accept([make_result(task.task_id, agent_id)]))
        await eventually(lambda: waits(pool))
    [verdict] = await accepting

    assert len(leased) == 1
    assert verdict == Finish(Status.COMPLETED)
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED, Kind.TASK_COMPLETED]


@pytest.mark.parametrize("plan", ["", "&enable_hashjoin=off&enable_mergejoin=off"], ids=["as usual", "row by row"])
@pytest.mark.parametrize("what", ["lease", "result", "output"])
async def test_who_waits_for_another_does_not_hold_the_head_of_the_events(
    tasks: TaskService, pool: Pool, ledger_url: str, what: str, plan: str
) -> None:
    async with open_pool(ledger_url + plan, connections=1) as own:
        assert await _wait_with_others(tasks, own, pool, what)


async def _wait_with_others(tasks: TaskService, own: Pool, pool: Pool, what: str) -> bool:
    """Lease or finish five tasks while somebody has a row of the last one, and write another event meanwhile."""
    new, agent_id = [make_new_task() for _ in range(5)], uuid4()
    ids = sorted(task.task_id for task in new)
    await tasks.dispatch(new, by="caller")
    if what != "lease":
        await lease_to(pool, *ids, agent_id=agent_id)
    async with transaction(pool) as db:
        await db.execute(SEND if what == "output" else HOLD, ids[-1])
        all_of_them = _all_leased if what == "lease" else _all_finished
        waiting = asyncio.create_task(all_of_them(own, ids, agent_id))
        await eventually(lambda: waits(pool))
        async with asyncio.timeout(5), transaction(pool) as writer:
            await events.append(writer, NewEvent(Kind.TASK_PROGRESS, "a test"))
    return await waiting


async def _all_leased(pool: Pool, ids: list[UUID], agent_id: UUID) -> bool:
    return len(await lease_to(pool, *ids, agent_id=agent_id)) == len(ids)


async def _all_finished(pool: Pool, ids: list[UUID], agent_id: UUID) -> bool:
    leases = LeaseService(pool, lease=LEASE, policy=RetryPolicy())
    chunk = make_chunk(0, "hello", offset=0)
    verdicts = await leases.accept([make_result(task_id, agent_id, chunks=[chunk]) for task_id in ids])
    return verdicts == [Finish(Status.COMPLETED)] * len(ids)


async def test_a_batch_of_all_kinds_of_results_is_answered_in_its_order_and_told_once(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    agent_id = uuid4()
    plain, keyed, repeated, done, failed = (make_new_task(max_attempts=2) for _ in range(5))
    keyed = make_new_task(ordering_key="a key")
    behind = make_new_task(ordering_key="a key")
    new = [plain, keyed, behind, repeated, done, failed]
    await tasks.dispatch(new, by="caller")
    await lease_to(pool, *(task.task_id for task in new if task is not behind), agent_id=agent_id)
    await leases.accept([make_result(done.task_id, agent_id)])
    chunks = [make_chunk(0, "a", offset=0), make_chunk(1, "b", offset=1)]
    results = [
        make_result(repeated.task_id, agent_id, status=ResultStatus.FAILED, retryable=True),
        make_result(plain.task_id, agent_id, chunks=chunks),
        make_result(plain.task_id, uuid4()),
        make_result(keyed.task_id, agent_id),
        make_result(failed.task_id, agent_id, status=ResultStatus.FAILED, exit_code=3),
        make_result(done.task_id, agent_id),
        make_result(plain.task_id, agent_id, chunks=chunks),
        make_result(uuid4(), agent_id),
    ]

    verdicts = await leases.accept(results)

    kinds = [type(verdict) for verdict in verdicts]
    assert kinds == [Requeue, Finish, Stale, Finish, Finish, Duplicate, Finish, Stale]
    assert verdicts[4] == Finish(Status.FAILED)
    told = [event for event in await events_of(pool) if event.kind != Kind.TASK_DISPATCHED]
    ended = {Kind.TASK_COMPLETED, Kind.TASK_FAILED}
    assert sorted(str(event.task_id) for event in told if event.kind in ended) == sorted(
        str(task.task_id) for task in (plain, keyed, done, failed)
    )
    assert (await kinds_of(pool, plain.task_id))[2:] == [
        Kind.TASK_OUTPUT,
        Kind.TASK_OUTPUT,
        Kind.TASK_COMPLETED,
        Kind.TASK_RESULT_REFUSED,
    ]
    assert [event.data["offset"] for event in told if event.kind == Kind.TASK_OUTPUT] == [0, 1]
    assert (await tasks.get(behind.task_id)).admitted


async def test_output_that_was_there_already_is_not_told_again_with_the_result(
    tasks: TaskService, leases: LeaseService, output: OutputService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)
    await output.store([make_status(task_id, agent_id, make_chunk(0, "a", offset=0))])
    twice = [make_chunk(0, "a", offset=0), make_chunk(1, "b\x00", offset=1), make_chunk(1, "b\x00", offset=1)]

    await leases.accept([make_result(task_id, agent_id, chunks=twice)])

    assert (await kinds_of(pool, task_id))[2:] == [Kind.TASK_OUTPUT, Kind.TASK_OUTPUT, Kind.TASK_COMPLETED]
    told = [event.data for event in await events_of(pool) if event.kind == Kind.TASK_OUTPUT]
    assert [data["text"] for data in told] == ["a", "b\N{REPLACEMENT CHARACTER}"]


async def test_a_lease_can_be_renewed_while_its_result_is_on_its_way(
    tasks: TaskService, leases: LeaseService, monkeypatch: pytest.MonkeyPatch, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, pool)
    before(monkeypatch, finish_queries, "finish", lambda: leases.renew([make_renewal(task_id, agent_id)]))

    [verdict] = await leases.accept([make_result(task_id, agent_id)])

    assert verdict == Finish(Status.COMPLETED)
