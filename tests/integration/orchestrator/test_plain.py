"""What most claims and results need is one read and one write, and what happens in between changes no promise."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ParamSpec, TypeVar
from uuid import UUID, uuid4

import pytest
from orchestrator.leases.claims import Claims
from orchestrator.leases.plain import queries

from common.lifecycle import Status
from common.messages import ResultStatus
from common.retry import RetryPolicy
from orchestrator.audit.verify import verify
from orchestrator.database.pool import Connection, Pool, open_pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.leases.rules import Duplicate, Finish, Requeue, Stale
from orchestrator.leases.service import LeaseService
from orchestrator.outbox import queries as outbox
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
from tests.integration.orchestrator.conftest import AGEING, LEASE
from tests.integration.orchestrator.ledger import events_of, kinds_of
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
TICKETS = "SELECT count(*) FROM outbox WHERE kind = 'ticket' AND task_id = $1"


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
    patch: pytest.MonkeyPatch, name: str, happens: Callable[[], Awaitable[object]], *, once: bool = True
) -> None:
    """Have something happen between the read and the guarded write of this name."""
    write = getattr(queries, name)

    async def wrapped(db: Connection, *args: Any, **options: Any) -> Any:
        if once:
            patch.setattr(queries, name, write)
        await happens()
        return await write(db, *args, **options)

    patch.setattr(queries, name, wrapped)


async def waits(pool: Pool) -> bool:
    async with pool.acquire() as db:
        return bool(await db.fetchval(WAITS))


async def tickets_of(pool: Pool, task_id: UUID) -> int:
    async with pool.acquire() as db:
        count: int = await db.fetchval(TICKETS, task_id)
        return count


@pytest.mark.path_internals
async def test_a_plain_claim_is_two_statements_and_a_plain_result_one_or_two(
    tasks: TaskService, registry: RegistryService, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, fourth = (make_new_task(max_attempts=2) for _ in range(4))
    await tasks.dispatch([first, second, third, fourth], by="caller")
    agent_id = uuid4()
    await registry.record([make_heartbeat(agent_id)])
    async with open_counting_pool(ledger_url, monkeypatch) as (pool, statements):
        leases, other = (LeaseService(pool, lease=LEASE, policy=RetryPolicy()) for _ in range(2))
        for task in (first, second, third, fourth):  # the first time the driver asks what the types are
            with statements.counted() as claiming:
                await lease_to(pool, task.task_id, agent_id=agent_id)
        for task, taker in ((first, other), (second, other), (third, leases)):
            with statements.counted() as finishing:
                await taker.accept([make_result(task.task_id, agent_id, chunks=[make_chunk(0, "hello", offset=0)])])
            if task is second:
                of_another = finishing
        with statements.counted() as repeating:
            await leases.accept([make_result(fourth.task_id, agent_id, status=ResultStatus.FAILED, retryable=True)])

    assert [statement.split()[0] for statement in claiming] == ["SELECT", "WITH"]
    assert [statement.split()[0] for statement in finishing] == ["WITH"]
    assert [statement.split()[0] for statement in of_another] == ["SELECT", "WITH"]
    assert repeating[1] == "BEGIN;"  # so that the others would be seen
    assert repeating[-1] == "COMMIT;"


async def test_of_two_orchestrators_that_have_both_seen_a_task_wait_one_leases_it(
    tasks: TaskService, leases: LeaseService, other: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    before(monkeypatch, "lease", asyncio.Barrier(2).wait, once=False)

    answers = await asyncio.gather(leases.claim([make_claim(task.task_id)]), other.claim([make_claim(task.task_id)]))

    [grant] = [answer.grant for [answer] in answers if answer.grant is not None]
    [refusal] = [answer.refusal for [answer] in answers if answer.refusal is not None]
    assert [(one.attempt, one.fence) for one in grant.tasks] == [(1, 1)]
    assert refusal.tasks[0].reason == "the task is running"
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]


async def test_a_claim_that_two_orchestrators_got_is_granted_once_and_answered_twice(
    tasks: TaskService, leases: LeaseService, other: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    claim = make_claim(task.task_id)
    before(monkeypatch, "lease", asyncio.Barrier(2).wait, once=False)

    first, second = await asyncio.gather(leases.claim([claim]), other.claim([claim]))

    assert first == second
    assert first[0].grant is not None
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]


async def test_a_result_that_two_orchestrators_got_counts_once(
    tasks: TaskService, leases: LeaseService, other: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, agent_id = await running(tasks, leases)
    result = make_result(task_id, agent_id, chunks=[make_chunk(0, "hello", offset=0)])
    before(monkeypatch, "finish", asyncio.Barrier(2).wait, once=False)

    verdicts = await asyncio.gather(leases.accept([result]), other.accept([result]))

    assert sorted(type(verdict).__name__ for [verdict] in verdicts) == ["Duplicate", "Finish"]
    assert (await kinds_of(pool, task_id))[2:] == [Kind.TASK_OUTPUT, Kind.TASK_COMPLETED]


async def test_a_task_that_is_cancelled_before_its_lease_is_written_is_not_leased(
    tasks: TaskService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    before(monkeypatch, "lease", lambda: tasks.cancel(task.task_id, by="caller"))

    [answer] = await lease_to(pool, task.task_id)

    assert answer.grant is None
    assert answer.refusal is not None
    assert answer.refusal.tasks[0].reason == "the task is cancelled"
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
    task_id, agent_id = await running(tasks, leases)
    result = make_result(task_id, agent_id, chunks=[make_chunk(0, "hello", offset=0)])
    before(monkeypatch, "finish", lambda: tasks.cancel(task_id, by="caller"))

    [verdict] = await (other if by_another else leases).accept([result])

    assert verdict == Stale("the attempt has ended: cancelled")
    assert (await tasks.get(task_id)).status is Status.CANCELLED
    assert (await kinds_of(pool, task_id))[2:] == [Kind.TASK_CANCELLED, Kind.TASK_OUTPUT, Kind.TASK_RESULT_REFUSED]


async def test_an_agent_that_is_shut_out_before_its_lease_is_written_gets_nothing(
    tasks: TaskService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, agent_id = make_new_task(), await named(pool, "web-1")
    await tasks.dispatch([task], by="caller")
    before(monkeypatch, "lease", lambda: disable(pool, agent_id))

    [answer] = await lease_to(pool, task.task_id, agent_id=agent_id)

    assert answer.grant is None
    assert answer.refusal is not None
    assert answer.refusal.tasks[0].reason == "the agent's identity was disabled"
    assert await tickets_of(pool, task.task_id) == 1


async def test_an_agent_that_is_paused_before_its_lease_is_written_gets_nothing(
    tasks: TaskService, registry: RegistryService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, agent_id = make_new_task(), uuid4()
    await tasks.dispatch([task], by="caller")
    await registry.record([make_heartbeat(agent_id)])

    async def pause() -> None:
        async with pool.acquire() as db:
            await db.execute("UPDATE agent SET paused_until = now() + interval '1 hour', paused_by = 'ann'")

    before(monkeypatch, "lease", pause)

    [answer] = await lease_to(pool, task.task_id, agent_id=agent_id)

    assert answer.refusal is not None
    assert "paused" in answer.refusal.tasks[0].reason


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
    before(monkeypatch, "finish", lambda: disable(pool, agent_id))

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
    task_id, agent_id = await running(tasks, leases)
    await registry.record([make_heartbeat(agent_id)])

    async def fail() -> None:
        async with pool.acquire() as db:
            await db.execute("UPDATE agent SET failures_in_row = 1")

    before(monkeypatch, "finish", fail)

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
    counts = make_result(task.task_id, second, attempt=2, fence=2, chunks=[chunk])

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
        await outbox.make_due(db, [task.task_id])
        claiming = asyncio.create_task(leases.claim([make_claim(task.task_id, agent_id=agent_id)]))
        await eventually(lambda: waits(pool))
    [answer] = await claiming
    async with transaction(pool) as db:
        await db.execute(TOUCH, task.task_id)
        accepting = asyncio.create_task(leases.accept([make_result(task.task_id, agent_id)]))
        await eventually(lambda: waits(pool))
    [verdict] = await accepting

    assert answer.grant is not None
    assert verdict == Finish(Status.COMPLETED)
    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED, Kind.TASK_COMPLETED]
    assert await tickets_of(pool, task.task_id) == 0


@pytest.mark.parametrize("plan", ["", "&enable_hashjoin=off&enable_mergejoin=off"], ids=["as usual", "row by row"])
@pytest.mark.parametrize("what", ["claim", "result", "output"])
async def test_who_waits_for_another_does_not_hold_the_head_of_the_events(
    tasks: TaskService, pool: Pool, ledger_url: str, what: str, plan: str
) -> None:
    async with open_pool(ledger_url + plan, connections=1) as own:
        leases = LeaseService(own, lease=LEASE, policy=RetryPolicy())
        assert await _wait_with_others(tasks, leases, pool, what)


async def _wait_with_others(tasks: TaskService, leases: LeaseService, pool: Pool, what: str) -> bool:
    """Claim or finish five tasks while somebody has a row of the last one, and write another event meanwhile."""
    new, agent_id = [make_new_task() for _ in range(5)], uuid4()
    ids = sorted(task.task_id for task in new)
    await tasks.dispatch(new, by="caller")
    if what != "claim":
        await lease_to(pool, *ids, agent_id=agent_id)
    async with transaction(pool) as db:
        await db.execute(SEND if what == "output" else HOLD, ids[-1])
        all_of_them = _all_claimed if what == "claim" else _all_finished
        waiting = asyncio.create_task(all_of_them(leases, ids, agent_id))
        await eventually(lambda: waits(pool))
        async with asyncio.timeout(5), transaction(pool) as writer:
            await events.append(writer, NewEvent(Kind.TASK_PROGRESS, "a test"))
    return await waiting


async def _all_claimed(leases: LeaseService, ids: list[UUID], agent_id: UUID) -> bool:
    [answer] = await lease_to(pool, *ids, agent_id=agent_id)
    return answer.grant is not None and len(answer.grant.tasks) == len(ids)


async def _all_finished(leases: LeaseService, ids: list[UUID], agent_id: UUID) -> bool:
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


async def test_a_batch_of_all_kinds_of_claims_is_answered_for_each(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    plain, contested, aimed = make_new_task(), make_new_task(), make_new_task(hints={"prefer": "gpu"})
    mine, others = uuid4(), uuid4()
    await tasks.dispatch([plain, contested, aimed], by="caller")

    first, second = await leases.claim(
        [
            make_claim(plain.task_id, contested.task_id, aimed.task_id, agent_id=mine),
            make_claim(contested.task_id, agent_id=others),
        ]
    )

    assert first.grant is not None
    assert {plain.task_id, contested.task_id} <= {one.work.task_id for one in first.grant.tasks}
    assert second.refusal is not None
    assert second.refusal.tasks[0].reason == "another agent was first"
    for task in (plain, contested):
        assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]


async def test_output_that_was_there_already_is_not_told_again_with_the_result(
    tasks: TaskService, leases: LeaseService, output: OutputService, pool: Pool
) -> None:
    task_id, agent_id = await running(tasks, leases)
    await output.store([make_status(task_id, agent_id, make_chunk(0, "a", offset=0))])
    twice = [make_chunk(0, "a", offset=0), make_chunk(1, "b\x00", offset=1), make_chunk(1, "b\x00", offset=1)]

    await leases.accept([make_result(task_id, agent_id, chunks=twice)])

    assert (await kinds_of(pool, task_id))[2:] == [Kind.TASK_OUTPUT, Kind.TASK_OUTPUT, Kind.TASK_COMPLETED]
    told = [event.data for event in await events_of(pool) if event.kind == Kind.TASK_OUTPUT]
    assert [data["text"] for data in told] == ["a", "b\N{REPLACEMENT CHARACTER}"]


@pytest.mark.path_internals
async def test_a_ticket_that_is_published_meanwhile_is_used_up_all_the_same(
    tasks: TaskService, leases: LeaseService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, plain = make_new_task(), make_new_task()
    await tasks.dispatch([task, plain], by="caller")
    async with transaction(pool) as db:
        await outbox.take_tickets(db, ["infra"], window=10, ttl=LEASE, ageing=AGEING)
        monkeypatch.setattr(Claims, "judge", None)  # nothing is left for it
        claiming = asyncio.create_task(leases.claim([make_claim(task.task_id, plain.task_id)]))
        await eventually(lambda: waits(pool))
    [answer] = await claiming

    assert answer.grant is not None
    assert len(answer.grant.tasks) == 2
    assert [await tickets_of(pool, one.task_id) for one in (task, plain)] == [0, 0]


@pytest.mark.path_internals
async def test_a_task_without_a_ticket_is_leased_all_the_same(tasks: TaskService, pool: Pool) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    async with pool.acquire() as db:
        await outbox.remove_tickets(db, [task.task_id])

    [answer] = await lease_to(pool, task.task_id)

    assert answer.grant is not None


async def test_a_lease_can_be_renewed_while_its_result_is_on_its_way(
    tasks: TaskService, leases: LeaseService, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id, agent_id = await running(tasks, leases)
    before(monkeypatch, "finish", lambda: leases.renew([make_renewal(task_id, agent_id)]))

    [verdict] = await leases.accept([make_result(task_id, agent_id)])

    assert verdict == Finish(Status.COMPLETED)
