"""Dead letters: noted once, replayed to where they came from, discarded, never looping by themselves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID, uuid4

import pytest

from common.broker import topology
from common.broker.base import Address, BrokerUnavailable, Delivery, Outgoing
from common.broker.memory import MemoryBroker
from common.lifecycle import Status
from common.loop import Wake
from common.messages import ResultStatus
from common.rest.dead_letters import DeadLetterKind, DeadLetterState
from orchestrator.database.pool import Pool
from orchestrator.dead_letters import queries
from orchestrator.dead_letters.model import Letter
from orchestrator.dead_letters.service import (
    CannotBeReplayed,
    DeadLetterIsSettled,
    DeadLetterNotFound,
    DeadLetterService,
)
from orchestrator.events.model import Kind as EventKind
from orchestrator.leases.service import LeaseService
from orchestrator.loops.consume_dead_letters import ConsumeDeadLetters
from orchestrator.policy.service import open_policy
from orchestrator.tasks.service import TaskService
from tests.factories import ANN, BOB, make_new_task, make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.at_once import meanwhile
from tests.integration.orchestrator.ledger import events_of, let_leases_run_out
from tests.integration.orchestrator.test_plain import before

RESULTS = Address(topology.REPLIES, "stranger.results")


@pytest.fixture
async def broker() -> MemoryBroker:
    opened = MemoryBroker()
    await opened.declare(*topology.SHARED_QUEUES)
    return opened


@pytest.fixture
def letters(pool: Pool, broker: MemoryBroker, tasks: TaskService) -> DeadLetterService:
    return DeadLetterService(pool, broker, tasks, open_policy(None), Wake())


@pytest.fixture
async def consume(broker: MemoryBroker, letters: DeadLetterService) -> AsyncIterator[ConsumeDeadLetters]:
    async with ConsumeDeadLetters(broker, letters) as opened:
        yield opened


async def bury(broker: MemoryBroker, queue: str, reason: str) -> None:
    """Have the next message of a queue dead-lettered, as its consumer would."""
    async with asyncio.timeout(5), broker.consume(queue, prefetch=1) as consumer:
        [delivery] = await consumer.receive()
        await consumer.dead_letter(delivery, reason)


async def noted(
    broker: MemoryBroker,
    consume: ConsumeDeadLetters,
    letters: DeadLetterService,
    body: bytes = b"{",
    *,
    priority: int = 3,
) -> Letter:
    """Note a result that nobody can read."""
    await broker.publish(Outgoing(RESULTS, body, type="work_result", priority=priority))
    await bury(broker, topology.RESULTS, "no JSON")
    async with asyncio.timeout(5):
        await consume.run_once()
    return (await letters.newest(state=None, kind=None, before=None, limit=1))[0]


async def lost(tasks: TaskService, leases: LeaseService, pool: Pool, **values: int) -> UUID:
    """Let a task fail because the agent of its only attempt is lost."""
    task = make_new_task(**values)
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id)
    await let_leases_run_out(pool)
    await leases.reap(limit=10)
    return task.task_id


async def all_of(letters: DeadLetterService) -> list[Letter]:
    return await letters.newest(state=None, kind=None, before=None, limit=100)


# Messages


async def test_a_dead_message_moves_into_the_ledger_with_all_that_is_known(
    broker: MemoryBroker, consume: ConsumeDeadLetters, letters: DeadLetterService, pool: Pool
) -> None:
    letter = await noted(broker, consume, letters, b'{"type": "work_result"}', priority=4)

    found = await letters.get(letter.id)
    assert (found.kind, found.queue, found.type, found.reason) == (
        DeadLetterKind.MESSAGE,
        "replies.results",
        "work_result",
        "no JSON",
    )
    assert (found.body, found.body_bytes, found.body_truncated) == (b'{"type": "work_result"}', 23, False)
    assert (found.state, found.priority) == (DeadLetterState.WAITING, 4)
    assert await broker.depth(topology.DEAD_LETTERS) == 0
    [event] = await events_of(pool)
    assert event.kind == EventKind.DEAD_LETTER_NOTED
    assert event.data == {
        "id": letter.id,
        "kind": "message",
        "queue": "replies.results",
        "type": "work_result",
        "reason": "no JSON",
    }


async def test_a_message_that_is_delivered_twice_is_noted_once(letters: DeadLetterService, pool: Pool) -> None:
    delivery = Delivery(b"{", str(uuid4()), 3, redelivered=False, headers={"queue": "work.infra"}, tag=None)

    assert [await letters.note([delivery]), await letters.note([delivery])] == [1, 0]
    assert len(await events_of(pool)) == 1


async def test_what_could_not_be_stored_stays_with_the_broker(
    broker: MemoryBroker, letters: DeadLetterService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(deliveries: object) -> int:
        raise ConnectionError("the database is away")

    await broker.publish(Outgoing(RESULTS, b"{", type="work_result"))
    await bury(broker, topology.RESULTS, "no JSON")
    async with ConsumeDeadLetters(broker, letters) as consume:
        with monkeypatch.context() as patched:
            patched.setattr(letters, "note", away)
            with pytest.raises(ConnectionError):
                await consume.run_once()

        assert await broker.depth(topology.DEAD_LETTERS) == 1
        assert await consume.run_once() == 1
    assert len(await all_of(letters)) == 1


async def test_a_replayed_message_goes_back_to_its_queue_unchanged(
    broker: MemoryBroker, consume: ConsumeDeadLetters, letters: DeadLetterService, pool: Pool
) -> None:
    letter = await noted(broker, consume, letters, b'{"x": 1}', priority=5)

    settled = await letters.replay(letter.id, by=ANN)

    assert (settled.state, settled.settled_by, settled.replayed_as) == (DeadLetterState.REPLAYED, "ann", None)
    async with broker.consume(topology.RESULTS, prefetch=1) as consumer:
        [delivery] = await consumer.receive()
    assert (delivery.body, delivery.priority) == (b'{"x": 1}', 5)
    event = (await events_of(pool))[-1]
    assert (event.kind, event.actor) == (EventKind.DEAD_LETTER_REPLAYED, "ann")


async def test_a_replayed_message_that_is_still_poison_is_a_new_letter_and_does_not_loop(
    broker: MemoryBroker, consume: ConsumeDeadLetters, letters: DeadLetterService
) -> None:
    letter = await noted(broker, consume, letters)
    await letters.replay(letter.id, by=ANN)

    await bury(broker, topology.RESULTS, "still no JSON")
    await consume.run_once()

    again, first = await all_of(letters)
    assert (first.id, first.state) == (letter.id, DeadLetterState.REPLAYED)
    assert (again.state, again.reason) == (DeadLetterState.WAITING, "still no JSON")
    assert await broker.depth(topology.RESULTS) == await broker.depth(topology.DEAD_LETTERS) == 0


async def test_a_letter_is_settled_once(
    broker: MemoryBroker, consume: ConsumeDeadLetters, letters: DeadLetterService
) -> None:
    letter = await noted(broker, consume, letters)
    await letters.discard(letter.id, by=ANN)

    settle: Callable[..., Awaitable[Letter]]
    for settle in (letters.replay, letters.discard):
        with pytest.raises(DeadLetterIsSettled, match="discarded by ann"):
            await settle(letter.id, by=BOB)
    assert await broker.depth(topology.RESULTS) == 0


async def test_of_many_who_replay_a_letter_at_once_one_does(
    broker: MemoryBroker, consume: ConsumeDeadLetters, letters: DeadLetterService
) -> None:
    letter = await noted(broker, consume, letters)

    answers = await asyncio.gather(*(letters.replay(letter.id, by=ANN) for _ in range(4)), return_exceptions=True)

    assert sum(isinstance(answer, Letter) for answer in answers) == 1
    assert await broker.depth(topology.RESULTS) == 1


async def test_a_letter_that_another_replays_at_that_moment_is_sent_once(
    broker: MemoryBroker,
    consume: ConsumeDeadLetters,
    letters: DeadLetterService,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    letter = await noted(broker, consume, letters)
    rivals: list[asyncio.Task[Letter]] = []

    async def replay() -> None:
        rivals.append(await meanwhile(pool, letters.replay(letter.id, by=BOB)))

    before(monkeypatch, queries, "settle", replay)
    await letters.replay(letter.id, by=ANN)
    [other] = await asyncio.gather(*rivals, return_exceptions=True)

    assert isinstance(other, DeadLetterIsSettled)
    assert await broker.depth(topology.RESULTS) == 1


async def test_a_message_that_was_not_sent_by_whom_it_speaks_for_is_not_replayed(
    broker: MemoryBroker, letters: DeadLetterService
) -> None:
    headers = {"queue": topology.RESULTS, "reason": "forged: it is not the agent's"}
    await letters.note([Delivery(b"{}", str(uuid4()), 3, redelivered=False, headers=headers, tag=None)])
    [letter] = await all_of(letters)

    with pytest.raises(CannotBeReplayed, match="not sent by whom it speaks for"):
        await letters.replay(letter.id, by=ANN)

    assert await broker.depth(topology.RESULTS) == 0


async def test_a_letter_whose_replay_the_broker_did_not_confirm_still_waits(
    broker: MemoryBroker, consume: ConsumeDeadLetters, letters: DeadLetterService, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = await noted(broker, consume, letters)

    async def unconfirmed(*messages: Outgoing) -> None:
        raise BrokerUnavailable("no confirm")

    monkeypatch.setattr(broker, "publish", unconfirmed)
    with pytest.raises(BrokerUnavailable):
        await letters.replay(letter.id, by=ANN)

    assert (await letters.get(letter.id)).state is DeadLetterState.WAITING


async def test_a_message_whose_queue_is_gone_or_unknown_cannot_be_replayed_and_the_reason_is_said(
    broker: MemoryBroker, letters: DeadLetterService
) -> None:
    for queue in (f"control.{uuid4()}", "no.queue.of.ours"):
        delivery = Delivery(b"{}", str(uuid4()), 3, redelivered=False, headers={"queue": queue}, tag=None)
        await letters.note([delivery])
    unknown, gone = await all_of(letters)

    with pytest.raises(CannotBeReplayed, match="any more"):
        await letters.replay(gone.id, by=ANN)
    with pytest.raises(CannotBeReplayed, match=r"no.queue.of.ours"):
        await letters.replay(unknown.id, by=ANN)
    assert (await letters.discard(gone.id, by=ANN)).state is DeadLetterState.DISCARDED


async def test_of_a_huge_message_the_beginning_is_kept_and_it_is_not_replayed(
    broker: MemoryBroker, consume: ConsumeDeadLetters, letters: DeadLetterService
) -> None:
    letter = await noted(broker, consume, letters, b"x" * (2 * 1024 * 1024))

    found = await letters.get(letter.id)
    assert (len(found.body), found.body_bytes, found.body_truncated) == (1024 * 1024, 2 * 1024 * 1024, True)
    with pytest.raises(CannotBeReplayed, match="were kept"):
        await letters.replay(letter.id, by=ANN)


async def test_letters_are_listed_newest_first_by_state_and_kind(
    broker: MemoryBroker,
    consume: ConsumeDeadLetters,
    letters: DeadLetterService,
    tasks: TaskService,
    leases: LeaseService,
    pool: Pool,
) -> None:
    message = await noted(broker, consume, letters)
    discarded = await noted(broker, consume, letters)
    await letters.discard(discarded.id, by=ANN)
    await lost(tasks, leases, pool)

    async def ids(state: DeadLetterState | None, kind: DeadLetterKind | None, before: int | None = None) -> list[int]:
        return [letter.id for letter in await letters.newest(state=state, kind=kind, before=before, limit=10)]

    task = (await all_of(letters))[0].id
    assert await ids(None, None) == [task, discarded.id, message.id]
    assert await ids(DeadLetterState.WAITING, None) == [task, message.id]
    assert await ids(DeadLetterState.WAITING, DeadLetterKind.MESSAGE) == [message.id]
    assert await ids(None, None, before=discarded.id) == [message.id]


async def test_a_letter_that_does_not_exist_is_not_found(letters: DeadLetterService) -> None:
    with pytest.raises(DeadLetterNotFound):
        await letters.get(1)
    with pytest.raises(DeadLetterNotFound):
        await letters.replay(1, by=ANN)


# Tasks


async def test_a_task_whose_attempts_are_used_up_by_lost_agents_is_a_dead_letter(
    letters: DeadLetterService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id = await lost(tasks, leases, pool)

    [letter] = await all_of(letters)
    assert (letter.kind, letter.task_id, letter.queue, letter.type) == (
        DeadLetterKind.TASK,
        task_id,
        "work.infra",
        "echo",
    )
    assert letter.reason.startswith("attempt 1 of 1: agent lost")
    kinds = [event.kind for event in await events_of(pool) if event.task_id == task_id]
    assert kinds[-2:] == [EventKind.TASK_FAILED, EventKind.DEAD_LETTER_NOTED]


@pytest.mark.parametrize(("error_code", "noted"), [(5002, 1), (5005, 1), (5001, 0), (None, 0)])
async def test_only_failures_of_agents_and_hosts_make_a_dead_letter(
    letters: DeadLetterService, tasks: TaskService, leases: LeaseService, error_code: int | None, noted: int, pool: Pool
) -> None:
    task, agent_id = make_new_task(), uuid4()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)

    failed = make_result(
        task.task_id, agent_id, status=ResultStatus.FAILED, error_code=error_code, error_message="disk is full"
    )
    await leases.accept([failed, failed])

    assert len(await all_of(letters)) == noted


async def test_a_task_that_is_tried_again_is_no_dead_letter_yet(
    letters: DeadLetterService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id = await lost(tasks, leases, pool, max_attempts=2)
    assert await all_of(letters) == []

    await lease_to(pool, task_id)
    await let_leases_run_out(pool)
    await leases.reap(limit=10)

    assert [letter.task_id for letter in await all_of(letters)] == [task_id]


async def test_a_replayed_task_is_a_new_task_with_the_same_content(
    letters: DeadLetterService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task_id = await lost(tasks, leases, pool, priority=5)
    [letter] = await all_of(letters)

    settled = await letters.replay(letter.id, by=ANN)

    assert settled.replayed_as is not None
    old, new = await tasks.get(task_id), await tasks.get(settled.replayed_as)
    assert (new.status, new.rerun_of, new.trace_id) == (Status.PENDING, task_id, old.trace_id)
    assert (new.work_type, new.parameters, new.priority) == (old.work_type, old.parameters, 5)
    assert old.status is Status.FAILED
    with pytest.raises(DeadLetterIsSettled):
        await letters.replay(letter.id, by=ANN)
    replayed = (await events_of(pool))[-1]
    assert (replayed.kind, replayed.data["replayed_as"]) == (EventKind.DEAD_LETTER_REPLAYED, str(new.task_id))


async def test_a_replayed_task_that_is_lost_again_is_a_new_letter(
    letters: DeadLetterService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    await lost(tasks, leases, pool)
    [letter] = await all_of(letters)
    settled = await letters.replay(letter.id, by=ANN)
    assert settled.replayed_as is not None

    await lease_to(pool, settled.replayed_as)
    await let_leases_run_out(pool)
    await leases.reap(limit=10)

    assert [one.task_id for one in await all_of(letters)] == [settled.replayed_as, letter.task_id]


async def test_a_task_that_a_person_cancelled_is_no_dead_letter(
    letters: DeadLetterService, tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id)
    await tasks.cancel(task.task_id, by="caller")
    await let_leases_run_out(pool)

    assert await leases.reap(limit=10) == 0
    assert await all_of(letters) == []
