"""An agent holds no more tickets than it has slots for, whoever they come from, and loses none."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from agents.capacity import Capacity
from agents.given import GivenWork
from agents.own_tickets import OwnTickets

from agents import given as given_module
from agents import lane as lane_module
from agents import slots as slots_module
from agents.attempts import Attempt, Attempts
from agents.availability import Availability
from agents.intake import Intake
from agents.slots import Slots
from agents.stopping import StopReason
from agents.unreadable import Undertaker
from common.broker.base import BrokerUnavailable, Consumer, Delivery, Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import own_work_address, own_work_queue, work_address, work_queue
from common.loop import Health
from common.messages import Ticket
from common.protocol import TicketEnvelope, encode
from tests.eventually import eventually
from tests.factories import make_grant

AGENT = UUID(int=7)
POOL, OWN = work_queue("infra"), own_work_queue(AGENT)


class Bus(MemoryBroker):
    """Counts the consumers of the pool; breaks them when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.prefetches: list[int] = []
        self.broken = asyncio.Event()

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        async with super().consume(queue, prefetch=prefetch) as consumer:
            if queue != POOL.name:
                yield consumer
                return
            self.prefetches.append(prefetch)
            try:
                yield cast("Consumer", Breakable(consumer, self.broken))
            finally:
                self.prefetches.remove(prefetch)


class Breakable:
    """A consumer that fails when it is told to."""

    def __init__(self, consumer: Consumer, broken: asyncio.Event) -> None:
        self._consumer = consumer
        self._broken = broken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    async def receive(self, limit: int = 1) -> Sequence[Delivery]:
        received = asyncio.ensure_future(self._consumer.receive(limit))
        broken = asyncio.ensure_future(self._broken.wait())
        try:
            await asyncio.wait({received, broken}, return_when=asyncio.FIRST_COMPLETED)
            if self._broken.is_set():
                raise BrokerUnavailable("gone")
            return received.result()
        finally:
            received.cancel()
            broken.cancel()


class Working:
    """Slots whose claims are all granted and whose work runs until it is told to end."""

    def __init__(self, count: int, *, hold: float = 60.0) -> None:
        self.broker, self.availability = Bus(), Availability()
        self.claimed: list[UUID] = []
        self.running: dict[UUID, asyncio.Event] = {}
        self.handed_back: dict[UUID, StopReason] = {}
        self.most = 0
        self.capacity = Capacity(count)
        self.given = GivenWork(self.run, self.capacity, self.availability, Attempts())
        self.own_tickets = OwnTickets(self.broker, OWN, self.availability, Health(), Undertaker(self.broker, AGENT))
        intake = Intake(
            broker=self.broker,
            agent_id=AGENT,
            queue=POOL,
            work_types={"echo"},
            claimer=cast("Any", self),
            reporter=cast("Any", None),
            run=self.run,
            availability=self.availability,
            undertaker=Undertaker(self.broker, AGENT),
            ticket_hold=timedelta(seconds=hold),
            capacity=self.capacity,
        )
        self.slots = Slots(count, intake, own_tickets=self.own_tickets, most_in_a_lane=count, given=self.given)

    async def claim(self, ticket: Ticket) -> Attempt:
        self.claimed.append(ticket.task_id)
        grant = make_grant()
        grant = grant.model_copy(update={"work": grant.work.model_copy(update={"task_id": ticket.task_id})})
        return Attempt.granted(grant, claimed_at=0.0)

    async def run(self, attempt: Attempt) -> None:
        if attempt.stop.reason is not None:
            self.handed_back[attempt.task_id] = attempt.stop.reason
            return
        end = self.running[attempt.task_id] = asyncio.Event()
        self.most = max(self.most, len(self.running))
        try:
            await end.wait()
        finally:
            del self.running[attempt.task_id]

    async def give(self, count: int = 1, *, own: bool = False) -> list[UUID]:
        tasks = [uuid4() for _ in range(count)]
        for task in tasks:
            ticket = TicketEnvelope(
                from_agent="orchestrator", to_agent="infra", payload=Ticket(task_id=task, work_type="echo", fence=0)
            )
            address = own_work_address(AGENT) if own else work_address("infra")
            await self.broker.publish(Outgoing(address, encode(ticket), ticket.type))
        return tasks

    async def until_running(self, tasks: Sequence[UUID]) -> None:
        await eventually(lambda: set(self.running) == set(tasks), every=0.005)

    def hand(self, *, has_slot: bool = False) -> UUID | None:
        """Give work that was claimed in advance; None when the agent takes none."""
        attempt = Attempt.granted(make_grant(), claimed_at=0.0)
        return attempt.task_id if self.given.begin(attempt, has_slot=has_slot) else None

    def end(self, *tasks: UUID) -> None:
        for task in tasks:
            self.running[task].set()

    async def waiting(self) -> int:
        return await self.broker.depth(POOL.name)


@asynccontextmanager
async def working(count: int, *, hold: float = 60.0) -> AsyncIterator[Working]:
    it = Working(count, hold=hold)
    await it.broker.declare(POOL, OWN)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(it.slots.run()), group.create_task(it.own_tickets.run())]
        yield it
        for task in tasks:
            task.cancel()


@pytest.mark.path_internals
async def test_one_consumer_holds_a_ticket_for_each_slot_and_no_more() -> None:
    async with working(3) as it:
        tasks = await it.give(5)
        await it.until_running(tasks[:3])

        assert it.broker.prefetches == [3]
        assert await it.waiting() == 2

        it.end(tasks[1])
        await it.until_running([tasks[0], tasks[2], tasks[3]])
        it.end(*it.running)
        await eventually(lambda: len(it.claimed) == 5)
        assert it.most == 3


async def test_work_that_outlasts_its_ticket_keeps_its_slot() -> None:
    async with working(3, hold=0.05) as it:
        long = await it.give(2)
        await it.until_running(long)
        await eventually(lambda: it.broker.prefetches == [1])

        tasks = await it.give(3)
        await it.until_running([*long, tasks[0]])
        assert await it.waiting() == 2

        it.end(tasks[0])
        await it.until_running([*long, tasks[1]])
        it.end(long[0])
        await it.until_running([long[1], tasks[1], tasks[2]])
        assert it.most == 3


async def test_a_ticket_that_is_held_too_long_is_settled_and_never_comes_again() -> None:
    async with working(1, hold=0.05) as it:
        [task] = await it.give()
        await it.until_running([task])
        await eventually(lambda: it.broker.prefetches == [])

        it.end(task)
        await eventually(lambda: it.broker.prefetches == [1])

        assert await it.waiting() == 0
        assert it.claimed == [task]


async def test_a_ticket_for_this_agent_alone_takes_a_slot_from_the_pool() -> None:
    async with working(2) as it:
        await eventually(lambda: it.broker.prefetches == [2])
        [own] = await it.give(own=True)
        await it.until_running([own])

        tasks = await it.give(2)
        await it.until_running([own, tasks[0]])
        assert await it.waiting() == 1

        it.end(own)
        await it.until_running(tasks)
        assert it.most == 2


async def test_a_ticket_for_this_agent_alone_gets_the_next_slot_that_is_free() -> None:
    async with working(1) as it:
        tasks = await it.give(2)
        await it.until_running(tasks[:1])
        [own] = await it.give(own=True)
        await eventually(it.slots._is_slot_wanted)

        it.end(tasks[0])
        await it.until_running([own])

        it.end(own)
        await it.until_running(tasks[1:])


async def test_a_ticket_for_this_agent_alone_that_finds_no_slot_goes_back_when_the_agent_pauses() -> None:
    async with working(1) as it:
        [task] = await it.give()
        await it.until_running([task])
        await it.give(own=True)
        await eventually(it.slots._is_slot_wanted)

        it.availability.pause(datetime.now(UTC) + timedelta(seconds=60), ordered_at=datetime.now(UTC))

        await eventually(lambda: it.broker.depth(OWN.name))
        it.end(task)
        await eventually(lambda: it.slots.is_idle)
        assert it.claimed == [task]


async def test_slots_that_are_apart_come_together_when_they_have_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots_module, "TOGETHER_AFTER", 0.05)
    async with working(3) as it:
        tasks = await it.give(2)
        await it.until_running(tasks)
        [own] = await it.give(own=True)
        await it.until_running([*tasks, own])
        it.end(tasks[0], own)
        it.end(tasks[1])

        await eventually(lambda: it.broker.prefetches == [3])


async def test_a_paused_agent_gives_its_tickets_back_and_finishes_its_work() -> None:
    async with working(2) as it:
        [task] = await it.give()
        await it.until_running([task])

        it.availability.pause(datetime.now(UTC) + timedelta(seconds=60), ordered_at=datetime.now(UTC))
        await it.give()

        await eventually(lambda: it.broker.prefetches == [2] and it.waiting())
        assert not it.slots.is_idle
        it.end(task)
        await eventually(lambda: it.slots.is_idle and it.broker.prefetches == [])
        it.availability.resume()
        await eventually(lambda: len(it.claimed) == 2)


async def test_a_consumer_that_breaks_is_opened_anew_and_its_work_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with working(2) as it:
        [task] = await it.give()
        await it.until_running([task])

        it.broker.broken.set()
        await eventually(lambda: "slot.failed" in caplog.text or it.broker.prefetches == [1])
        it.broker.broken.clear()

        [other] = await it.give()
        await it.until_running([task, other])
        assert it.most == 2


@pytest.mark.parametrize("turns", range(6))
async def test_a_ticket_for_this_agent_alone_that_comes_while_the_pool_breaks_is_settled(turns: int) -> None:
    async with working(1) as it:
        await eventually(lambda: it.broker.prefetches == [1])
        it.broker.broken.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        [own] = await it.give(own=True)
        it.broker.broken.clear()

        await it.until_running([own])
        it.end(own)
        await eventually(lambda: it.slots.is_idle)
        assert await it.broker.depth(OWN.name) == 0


async def test_who_stops_waits_for_its_work_and_for_nothing_else() -> None:
    it = Working(2)
    await it.broker.declare(POOL)
    running = asyncio.create_task(it.slots.run())
    [task] = await it.give()
    await it.until_running([task])

    it.availability.stop()
    await it.give()
    done, _ = await asyncio.wait({running}, timeout=0.1)
    assert not done
    it.end(task)
    async with asyncio.timeout(5):
        await running

    assert it.claimed == [task]
    assert await it.waiting() == 1


async def test_who_is_cancelled_stops_its_work_and_gives_its_ticket_back() -> None:
    async with working(1) as it:
        [task] = await it.give()
        await it.until_running([task])

    assert it.running == {}
    assert await it.waiting() == 1


@pytest.mark.path_internals
async def test_work_claimed_in_advance_takes_a_slot_like_any_other() -> None:
    async with working(2) as it:
        given = it.hand()
        assert given is not None
        await it.until_running([given])
        [task] = await it.give()
        await it.until_running([given, task])

        third = it.hand()
        assert third is not None
        assert not it.slots.is_idle
        it.end(task)
        await it.until_running([given, third])
        assert it.most == 2


@pytest.mark.path_internals
async def test_work_claimed_in_advance_that_finds_no_slot_goes_back_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_module, "PATIENCE", 0.02)
    async with working(1) as it:
        [task] = await it.give()
        await it.until_running([task])

        given = it.hand()

        await eventually(lambda: it.handed_back == {given: StopReason.NO_SLOT})
        it.end(task)
        await eventually(lambda: it.capacity.free == 1)


@pytest.mark.path_internals
async def test_a_slot_that_is_kept_for_a_claim_is_not_for_tickets_until_it_is_let_go() -> None:
    async with working(2) as it:
        it.capacity.keep(1)
        tasks = await it.give(2)
        await it.until_running(tasks[:1])
        given = it.hand(has_slot=True)
        assert given is not None
        await it.until_running([tasks[0], given])

        it.end(given)
        await it.until_running(tasks)
        it.capacity.keep(1)
        it.end(tasks[0])
        later = await it.give()
        await asyncio.sleep(0.05)
        assert set(it.running) == {tasks[1]}
        it.capacity.let_go(1)
        await it.until_running([tasks[1], *later])


@pytest.mark.path_internals
async def test_tickets_that_find_their_slots_taken_by_work_claimed_in_advance_go_back_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane_module, "PATIENCE", 0.02)
    async with working(2) as it:
        await eventually(lambda: it.broker.prefetches == [2])
        given = it.hand()
        assert given is not None
        await it.until_running([given])

        tasks = await it.give(2)
        await eventually(lambda: len(it.running) == 2)
        await eventually(it.waiting)

        assert it.most == 2
        assert len(it.claimed) == 1, "who has no slot does not claim"
        it.end(given)
        await it.until_running(tasks)
        assert it.most == 2


@pytest.mark.path_internals
async def test_an_agent_of_one_slot_takes_no_ticket_beside_work_claimed_in_advance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane_module, "PATIENCE", 0.02)
    async with working(1) as it:
        await eventually(lambda: it.broker.prefetches == [1])
        given = it.hand()
        assert given is not None
        await it.until_running([given])

        [task] = await it.give()
        await eventually(lambda: it.broker.prefetches == [])
        assert await it.waiting() == 1

        it.end(given)
        await it.until_running([task])
        it.end(task)
        await eventually(lambda: it.broker.prefetches == [1])


@pytest.mark.path_internals
async def test_a_ticket_for_this_agent_alone_waits_for_work_claimed_in_advance() -> None:
    async with working(1) as it:
        await eventually(lambda: it.broker.prefetches == [1])
        given = it.hand()
        assert given is not None
        await it.until_running([given])
        [own] = await it.give(own=True)
        await eventually(lambda: it.broker.prefetches == [])
        assert it.claimed == []

        it.end(given)
        await it.until_running([own])
        assert it.most == 1


@pytest.mark.path_internals
async def test_who_stops_waits_for_work_claimed_in_advance_and_takes_no_more() -> None:
    it = Working(2)
    await it.broker.declare(POOL)
    running = asyncio.create_task(it.slots.run())
    given = it.hand()
    assert given is not None
    await it.until_running([given])

    it.availability.stop()
    assert it.hand() is None
    done, _ = await asyncio.wait({running}, timeout=0.1)
    assert not done
    it.end(given)
    async with asyncio.timeout(5):
        await running
