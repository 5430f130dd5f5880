"""A lease is renewed in time, and what cannot be renewed is stopped in time."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

from agents.attempts.owned import Attempt, Attempts
from agents.attempts.stopping import StopReason
from agents.processes.deadlines import Deadlines
from agents.tasks.renew import LeaseRenewer
from common.broker.base import BrokerUnavailable, Outgoing
from common.broker.memory import MemoryBroker
from common.clock import SystemClock
from common.messages import GrantedTask, Lease, Renew, Renewed, WorkRequest
from common.protocol import decode
from tests.eventually import eventually

AGENT = UUID(int=7)


class Renewals(MemoryBroker):
    """Records the renewals; while `is_away` none is stored, while `hangs` none returns."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Renew] = []
        self.is_away = False
        self.hangs = False

    async def publish(self, *messages: Outgoing) -> None:
        payload = decode(messages[0].body).payload
        assert isinstance(payload, Renew)
        self.sent.append(payload)
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_away:
            raise BrokerUnavailable("away")


class Keeping:
    def __init__(self, broker: Renewals, attempts: Attempts, renewer: LeaseRenewer) -> None:
        self.broker = broker
        self.attempts = attempts
        self.renewer = renewer

    def grant(self, *, lease_seconds: float) -> Attempt:
        grant = GrantedTask(
            claim_id=uuid4(),
            work=WorkRequest(task_id=uuid4(), work_type="echo"),
            trace_id=uuid4(),
            request_id=uuid4(),
            attempt=1,
            lease_seconds=lease_seconds,
        )
        attempt = Attempt.granted(grant, asked_at=SystemClock().monotonic())
        self.attempts.add(attempt)
        return attempt

    def answer(self, renewal: Renew, *, kept: list[Lease] | None = None, lost: list[Lease] | None = None) -> None:
        self.renewer.answered(
            Renewed(renewal_id=renewal.renewal_id, lease_seconds=60.0, kept=kept or [], lost=lost or [])
        )


@asynccontextmanager
async def keeping(*, kill_grace: float = 10.0) -> AsyncIterator[Keeping]:
    broker, attempts = Renewals(), Attempts()
    renewer = LeaseRenewer(
        broker, AGENT, attempts, SystemClock(), deadlines=Deadlines(), kill_grace=timedelta(seconds=kill_grace)
    )
    running = asyncio.create_task(renewer.run())
    try:
        yield Keeping(broker, attempts, renewer)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_kept_lease_runs_from_when_the_renewal_was_sent() -> None:
    async with keeping() as it:
        attempt = it.grant(lease_seconds=0.6)
        await eventually(lambda: it.broker.sent)
        answered_at = SystemClock().monotonic()

        it.answer(it.broker.sent[0], kept=it.broker.sent[0].leases)

        assert attempt.lease_until < answered_at + 60.0
        assert attempt.lease_until > answered_at + 59.0
        assert attempt.stop.reason is None


async def test_a_renewal_without_an_answer_is_repeated_before_the_lease_ends() -> None:
    async with keeping() as it:
        it.broker.is_away = True
        attempt = it.grant(lease_seconds=1.2)

        await eventually(lambda: len(it.broker.sent) >= 3)

        assert attempt.stop.reason is None
        assert len({renewal.renewal_id for renewal in it.broker.sent}) == len(it.broker.sent)


async def test_work_is_stopped_while_the_lease_still_covers_the_kill_also_when_publishing_hangs() -> None:
    async with keeping(kill_grace=10.0) as it:
        it.broker.hangs = True
        attempt = it.grant(lease_seconds=0.8)

        await asyncio.wait_for(attempt.stop.wait(), 5)

        assert attempt.stop.reason is StopReason.LEASE_LOST
        assert attempt.stop.kill_at < attempt.lease_until  # both on the monotonic clock


async def test_an_answer_that_comes_too_late_to_be_known_extends_nothing() -> None:
    async with keeping() as it:
        attempt = it.grant(lease_seconds=30.0)
        before = attempt.lease_until
        unknown = Renew(renewal_id=uuid4(), agent_id=AGENT, leases=[Lease(task_id=attempt.task_id, attempt=1)])

        it.answer(unknown, kept=unknown.leases)

        assert attempt.lease_until == before


async def test_a_lost_lease_stops_the_work_whichever_renewal_it_answers() -> None:
    async with keeping() as it:
        attempt = it.grant(lease_seconds=30.0)
        other = it.grant(lease_seconds=30.0)
        unknown = Renew(renewal_id=uuid4(), agent_id=AGENT, leases=[Lease(task_id=attempt.task_id, attempt=1)])

        it.answer(unknown, lost=unknown.leases)

        assert attempt.stop.reason is StopReason.LEASE_LOST
        assert (other.stop.reason, other.stop.kill_at) == (None, math.inf)


async def test_the_loss_of_another_lease_does_not_stop_the_work() -> None:
    async with keeping() as it:
        attempt = it.grant(lease_seconds=30.0)
        renewal = Renew(renewal_id=uuid4(), agent_id=AGENT, leases=[Lease(task_id=attempt.task_id, attempt=2)])

        it.answer(renewal, lost=renewal.leases)

        assert attempt.stop.reason is None


async def test_the_lease_of_work_that_is_being_stopped_is_renewed_also_after_a_pause_of_the_process() -> None:
    async with keeping() as it:
        attempt = it.grant(lease_seconds=60.0)
        attempt.stop.order(StopReason.CANCELLED, grace=10)

        # The process stood still between two steps: the renewal is overdue when the renewer decides how long to sleep.
        assert it.renewer._pause(attempt.renew_at + 0.1) == 0.0
