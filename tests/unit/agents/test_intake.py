"""What was leased to this process runs once; everything else that comes goes back untouched, or is nothing."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from agents.attempts.begun import Begun
from agents.attempts.owned import Attempt, Attempts
from agents.attempts.stopping import StopReason
from agents.disk.spool import Spool
from agents.disk.spool_lines import Key
from agents.gate.signature_check import SignatureCheck
from agents.gate.trust import TRUST_FILE, Trust
from agents.link.reporter import Reporter
from agents.link.unreadable import Undertaker
from agents.tasks import intake as intake_module
from agents.tasks.availability import Availability
from agents.tasks.handover import Handover
from agents.tasks.intake import Intake
from agents.tasks.slots import Slots
from common.broker.base import Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES, work_address, work_queue
from common.clock import SystemClock
from common.loop import Health
from common.messages import Grant, GrantedTask, ResultStatus, WorkResult
from common.protocol import ORCHESTRATOR, WorkRequestEnvelope, WorkResults, decode, encode
from common.signing.claims import KeyClaims, NamedKey, SignedTask, sign_grant
from common.signing.jws import Purpose, sign
from common.signing.keys import PrivateKey
from tests.eventually import eventually
from tests.factories import make_grant
from tests.fakes.clock import FakeClock
from tests.fuzz.bounds import SEED

AGENT, SESSION = UUID(int=7), UUID(int=8)
LEASE = 60.0


def key_of(grant: GrantedTask) -> Key:
    return Key(grant.work.task_id, grant.attempt)


class Results(MemoryBroker):
    """Notes the results that the agent sends."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[WorkResult] = []

    async def publish(self, *messages: Outgoing) -> None:
        await super().publish(*messages)
        for payload in (decode(message.body).payload for message in messages):
            if isinstance(payload, WorkResults):
                self.sent += [result.payload for result in payload.results]


class Site:
    """An agent whose work ends when the test lets it."""

    def __init__(self, slots: int, folder: Path, *, key: PrivateKey | None, begun: Begun) -> None:
        self._count = slots
        self.clock = FakeClock()
        self.availability = Availability()
        self.attempts = Attempts()
        self.slots = Slots(slots, SESSION, self.availability, self.clock)
        self.slots.open()
        self.broker = Results()
        self.key = key
        self.begun = begun
        self.trust = None if key is None else Trust(folder / TRUST_FILE, [key.public])
        self.asked_for_keys = 0
        self.may_end = asyncio.Event()
        self.ran: list[Attempt] = []
        self.running = 0
        self.most_running = 0
        self.ended_without_result = 0

    async def run(self, attempt: Attempt) -> None:
        self.ran.append(attempt)
        if attempt.stop.reason is None:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            try:
                await self.may_end.wait()
            finally:
                self.running -= 1

    def begin(self, handover: Handover) -> Intake:
        self.handover = handover
        self.intake = Intake(
            self.broker,
            AGENT,
            work_queue("infra", AGENT),
            self.run,
            self.slots,
            self.slots,
            attempts=self.attempts,
            handover=handover,
            begun=self.begun,
            signatures=SignatureCheck(
                self.trust,
                AGENT,
                self.clock,
                skew=timedelta(minutes=5),
                claim_of=self.slots.claim_of,
                ask_for_keys=self._ask_for_keys,
            ),
            availability=self.availability,
            clock=self.clock,
            undertaker=Undertaker(self.broker, AGENT),
            health=Health(),
            work_ended=self._work_ended,
        )
        return self.intake

    def grant(self, **values: Any) -> GrantedTask:
        return make_grant(**{"claim_id": SESSION, "lease_seconds": LEASE, **values})

    async def send(
        self, *grants: GrantedTask, credit: int | None = None, granted: int | None = None, signed: bool = True
    ) -> None:
        """Send grants in one message, in answer to a message of just now, and wait until it was read."""
        number = self.slots.credit().number if credit is None else credit
        message = Grant(tasks=list(grants), credit=number, granted=granted)
        if self.key is not None and signed:
            tasks, valid = [SignedTask.of(grant) for grant in grants], timedelta(seconds=LEASE)
            signature = sign_grant(self.key, AGENT, tasks, now=self.clock.now(), valid=valid, credit=number)
            message = message.model_copy(update={"signature": signature})
        body = encode(WorkRequestEnvelope(from_agent=ORCHESTRATOR, to_agent="agent", payload=message))
        await self.broker.publish(Outgoing(work_address("infra", AGENT), body, "work_request"))
        await eventually(self._is_read)

    async def _is_read(self) -> bool:
        return await self.broker.depth(work_queue("infra", AGENT).name) == 0

    @property
    def handed_back(self) -> list[tuple[UUID, int]]:
        """The attempts that went back, each of which must be said to be untouched."""
        assert all(not result.started for result in self.broker.sent)
        return [(result.task_id, result.attempt) for result in self.broker.sent]

    @property
    def ended(self) -> int:
        return self.slots.credit().limit - self._count

    def _ask_for_keys(self) -> None:
        self.asked_for_keys += 1

    def _work_ended(self) -> None:
        self.ended_without_result += 1


Open = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def site(tmp_path: Path) -> Open:
    @asynccontextmanager
    async def opened(
        slots: int = 2, *, key: PrivateKey | None = None, begun: Begun | None = None
    ) -> AsyncIterator[Site]:
        site = Site(slots, tmp_path, key=key, begun=begun or Begun())
        await site.broker.declare(*REPLY_QUEUES, work_queue("infra", AGENT))
        spool = Spool(tmp_path / "spool")
        spool.open()
        async with (
            Reporter(site.broker, AGENT, site.slots.credit) as reporter,
            Handover(spool, reporter, SystemClock(), resend_after=timedelta(minutes=1), health=Health()) as handover,
        ):
            running = asyncio.create_task(site.begin(handover).run())
            yield site
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return opened


async def test_a_grant_says_how_many_came_before_it(site: Open) -> None:
    async with site(slots=3) as it:
        await it.send(it.grant(), granted=3)
        await eventually(lambda: it.running == 1)

        credit = it.slots.credit()

        assert (credit.received, credit.heard) == (1, 3)


async def test_what_was_leased_to_this_process_runs_at_once_and_its_end_makes_room_for_more(site: Open) -> None:
    async with site(slots=2) as it:
        grants = [it.grant(), it.grant()]
        await it.send(*grants)
        await eventually(lambda: it.running == 2)
        assert {key_of(attempt.grant) for attempt in it.attempts} == set(map(key_of, grants))
        assert (it.slots.credit().received, it.ended) == (2, 0)

        it.may_end.set()

        assert await it.intake.ended(within=5)
        assert (it.slots.credit().received, it.ended) == (2, 2)
        assert it.ended_without_result == 2
        assert len(it.attempts) == 0
        assert it.slots.is_one_free


async def test_a_grant_runs_once_however_often_it_comes(site: Open) -> None:
    async with site(slots=4) as it:
        grant = it.grant()
        await it.send(grant, grant)
        await it.send(grant)
        it.may_end.set()
        await it.intake.ended(within=5)
        await it.send(grant)

        assert [key_of(attempt.grant) for attempt in it.ran] == [key_of(grant)]
        assert it.handed_back == []
        assert (it.slots.credit().received, it.ended) == (1, 1)


async def test_a_later_lease_of_the_same_task_is_another_attempt(site: Open) -> None:
    async with site(slots=4) as it:
        first = it.grant()
        await it.send(first)
        await it.send(first.model_copy(update={"attempt": 2}))

        assert [attempt.number for attempt in it.ran] == [1, 2]


async def test_never_more_runs_than_there_are_slots(site: Open) -> None:
    async with site(slots=3) as it:
        await it.send(*(it.grant() for _ in range(10)))
        await eventually(lambda: it.running == 3)
        it.may_end.set()

        assert await it.intake.ended(within=5)
        assert (it.most_running, len(it.ran)) == (3, 10)
        assert {attempt.stop.reason for attempt in it.ran} == {None}


async def test_what_finds_no_slot_for_long_goes_back_untouched(site: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "PATIENCE", 0.05)
    async with site(slots=1) as it:
        await it.send(it.grant(), it.grant())

        await eventually(lambda: len(it.ran) == 2)

        assert [attempt.stop.reason for attempt in it.ran] == [None, StopReason.NO_SLOT]
        assert (it.running, it.ended) == (1, 1)
        it.may_end.set()
        await it.intake.ended(within=5)
        assert it.slots.is_one_free


async def test_a_lease_counts_from_when_it_was_asked_for(site: Open) -> None:
    async with site() as it:
        sent_at = it.clock.monotonic()
        number = it.slots.credit().number
        it.clock.advance(seconds=LEASE / 4)
        it.slots.credit()
        await it.send(it.grant(), credit=number)

        [attempt] = it.ran
        assert attempt.lease_until == sent_at + LEASE
        assert attempt.renew_at == sent_at + LEASE / 3


async def test_a_lease_of_which_half_has_passed_is_renewed_before_anything_runs(site: Open) -> None:
    async with site() as it:
        number = it.slots.credit().number
        it.clock.advance(seconds=LEASE * 0.6)
        await it.send(it.grant(), credit=number)
        await eventually(lambda: len(it.attempts))
        [attempt] = it.attempts
        assert it.ran == []
        assert attempt.renew_at < it.clock.monotonic(), "it is due"
        assert attempt.renewed is not None

        attempt.renewed.set()

        await eventually(lambda: it.ran == [attempt])
        assert it.running == 1


async def test_a_lease_that_is_lost_before_it_was_renewed_does_not_run(site: Open) -> None:
    async with site() as it:
        number = it.slots.credit().number
        it.clock.advance(seconds=LEASE * 0.6)
        await it.send(it.grant(), credit=number)
        [attempt] = it.attempts

        attempt.stop.order(StopReason.LEASE_LOST, grace=0)

        await eventually(lambda: it.ran == [attempt])
        assert it.most_running == 0


async def test_a_lease_that_is_over_when_it_comes_goes_back(site: Open) -> None:
    async with site() as it:
        number = it.slots.credit().number
        it.clock.advance(seconds=LEASE)
        grant = it.grant()
        await it.send(grant, credit=number)

        await eventually(lambda: it.handed_back == [key_of(grant)])
        assert (it.ran, it.ended) == ([], 1)


@pytest.mark.parametrize("credit", [99, 1_000_000])
async def test_a_lease_of_which_it_is_not_known_how_old_it_is_goes_back(site: Open, credit: int) -> None:
    async with site() as it:
        grant = it.grant()
        await it.send(grant, credit=credit)

        await eventually(lambda: it.handed_back == [key_of(grant)])
        assert (it.ran, it.ended) == ([], 1)


async def test_what_was_leased_to_an_earlier_process_goes_back_and_counts_for_nothing(site: Open) -> None:
    earlier = uuid4()
    async with site(begun=Begun(sessions=[earlier])) as it:
        grant = it.grant(claim_id=earlier)
        await it.send(grant)
        await it.send(grant)

        await eventually(lambda: it.handed_back == [key_of(grant)])
        assert (it.ran, it.slots.credit().received, it.ended) == ([], 0, 0)


async def test_what_was_leased_to_a_process_before_the_host_lost_power_is_neither_run_nor_handed_back(
    site: Open,
) -> None:
    async with site(begun=Begun(sessions=[uuid4()])) as it:
        unknown, last = it.grant(claim_id=uuid4()), it.grant()
        it.may_end.set()
        await it.send(unknown, last)

        await eventually(lambda: [attempt.grant for attempt in it.ran] == [last])
        assert await it.intake.ended(within=5)
        assert it.handed_back == []


async def test_what_an_earlier_life_began_or_owes_is_not_touched(site: Open) -> None:
    earlier = uuid4()
    began, owed = make_grant(claim_id=earlier), make_grant(claim_id=earlier)
    async with site(begun=Begun([key_of(began)], sessions=[earlier])) as it:
        it.handover.expect([key_of(owed)])
        last = it.grant()
        it.may_end.set()
        await it.send(began, owed, last)

        await eventually(lambda: [attempt.grant for attempt in it.ran] == [last])
        assert await it.intake.ended(within=5)
        assert it.handed_back == []
        assert it.slots.credit().received == 1


async def test_what_comes_while_the_agent_takes_no_work_goes_back_and_no_more_is_asked_for(site: Open) -> None:
    async with site() as it:
        limit = it.slots.credit().limit
        it.availability.pause(datetime.now(UTC) + timedelta(hours=1), ordered_at=datetime.now(UTC))
        grant = it.grant()
        await it.send(grant)

        await eventually(lambda: it.handed_back == [key_of(grant)])
        assert it.broker.sent[0].retryable
        assert it.slots.credit().limit == limit
        it.availability.resume()
        assert it.slots.credit().limit == limit + 1


async def test_what_goes_back_and_was_cancelled_before_it_came_is_cancelled(site: Open) -> None:
    async with site() as it:
        it.availability.drain()
        grant = it.grant()
        it.attempts.cancel(*key_of(grant), grace=0)
        await it.send(grant)

        await eventually(lambda: it.broker.sent)
        assert it.broker.sent[0].status is ResultStatus.CANCELLED


async def test_a_cancel_that_overtook_its_grant_stops_it_before_it_starts(site: Open) -> None:
    async with site() as it:
        grant = it.grant()
        it.attempts.cancel(*key_of(grant), grace=0)
        it.attempts.cancel(grant.work.task_id, 77, grace=0)
        await it.send(grant)

        await eventually(lambda: it.ran)
        assert (it.ran[0].stop.reason, it.most_running) == (StopReason.CANCELLED, 0)


@pytest.mark.parametrize("is_ours", [True, False], ids=["this process", "an earlier process"])
async def test_nobody_is_told_of_a_forged_grant_that_is_not_run(
    site: Open, caplog: pytest.LogCaptureFixture, is_ours: bool
) -> None:
    async with site(key=PrivateKey.new()) as it:
        if is_ours:
            it.availability.drain()
        forged = it.grant(claim_id=SESSION if is_ours else uuid4())
        await it.send(forged, signed=False)

        await eventually(lambda: "grant.forged" in caplog.text)
        assert await it.intake.ended(within=5)
        assert (it.ran, it.handed_back) == ([], [])


async def test_a_forged_grant_of_an_earlier_lease_does_not_keep_the_genuine_one_from_going_back(site: Open) -> None:
    earlier = uuid4()
    async with site(key=PrivateKey.new(), begun=Begun(sessions=[earlier])) as it:
        grant = it.grant(claim_id=earlier)
        await it.send(grant, signed=False)
        await it.send(grant)

        await eventually(lambda: it.handed_back == [key_of(grant)])


async def test_work_that_waits_for_the_news_of_a_key_takes_no_slot(site: Open) -> None:
    ours, new = PrivateKey.new(), PrivateKey.new()
    async with site(slots=1, key=ours) as it:
        it.key = new
        early = it.grant()
        await it.send(early)
        await eventually(lambda: it.asked_for_keys == 1)
        it.key = ours
        other = it.grant()
        await it.send(other)
        await eventually(lambda: [attempt.grant for attempt in it.ran] == [other])
        it.may_end.set()

        now = it.clock.now()
        seconds = int(now.timestamp())
        keys = (NamedKey.of(ours.public), NamedKey.of(new.public))
        claims = KeyClaims(iat=seconds, exp=seconds + 60, keys=keys)
        assert it.trust is not None
        it.trust.follow([sign(ours, Purpose.KEYS, claims.model_dump_json())], now=now, skew=timedelta(0))

        await eventually(lambda: [attempt.grant for attempt in it.ran] == [other, early])


async def test_work_that_breaks_is_logged_and_makes_room(site: Open, caplog: pytest.LogCaptureFixture) -> None:
    async with site(slots=1) as it:

        async def explode(attempt: Attempt) -> None:
            raise RuntimeError("broken")

        it.intake._run = explode
        await it.send(it.grant())

        assert await it.intake.ended(within=5)
        assert "work.lost" in caplog.text
        assert (it.ended, it.ended_without_result) == (1, 1)
        assert it.slots.is_one_free


async def test_who_does_not_end_in_time_is_said_to_run_and_can_be_stopped(site: Open) -> None:
    async with site(slots=1) as it:
        await it.send(it.grant(), it.grant())
        await eventually(lambda: it.running == 1)

        assert not await it.intake.ended(within=0.01)
        await it.intake.stop()

        assert it.intake.is_idle
        assert (it.running, it.ended, len(it.attempts)) == (0, 2, 0)
        assert it.slots.is_one_free


async def test_every_task_that_was_received_ends_once_whatever_becomes_of_it(
    site: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "PATIENCE", 0.02)
    print(f"CHIFFON_SEED={SEED}")
    chance = random.Random(SEED)
    async with site(slots=3, key=PrivateKey.new()) as it:
        sent, ours = list[GrantedTask](), set[Key]()
        for _ in range(100):
            stale = it.slots.credit().number
            it.clock.advance(seconds=chance.choice([0, 0, 0, LEASE * 0.6, LEASE]))
            session = chance.choice([SESSION, SESSION, SESSION, uuid4()])
            grant = chance.choice([*sent[-5:], it.grant(claim_id=session)])
            sent.append(grant)
            if grant.claim_id == SESSION:
                ours.add(key_of(grant))
            if chance.random() < 0.2:
                it.attempts.cancel(*key_of(grant), grace=0)
            if chance.random() < 0.2:
                it.availability.drain()
            await it.send(grant, credit=chance.choice([None, stale, 10**6]), signed=chance.random() < 0.9)
            it.availability.resume()
            for attempt in it.attempts:
                if attempt.renewed is not None:
                    attempt.renewed.set()
            if chance.random() < 0.3:
                it.may_end.set()
                await it.intake.ended(within=5)
                it.may_end.clear()
        it.may_end.set()
        assert await it.intake.ended(within=5)

        assert it.most_running <= 3
        assert len({key_of(attempt.grant) for attempt in it.ran}) == len(it.ran)
        assert len(set(it.handed_back)) == len(it.handed_back)
        assert (it.slots.credit().received, it.ended) == (len(ours), len(ours))
