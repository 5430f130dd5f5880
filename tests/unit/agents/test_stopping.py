"""An order to stop is final, and what is ordered later can only bring the end nearer."""

import asyncio

import pytest

from agents.attempts.owned import Attempt, Attempts
from agents.attempts.stopping import StopReason, StopSignal
from tests.factories import make_grant


async def test_a_later_order_cannot_put_off_the_kill() -> None:
    stop = StopSignal()
    stop.order(StopReason.LEASE_LOST, grace=1)
    kill_at = stop.kill_at

    stop.order(StopReason.CANCELLED, grace=3600)

    assert (stop.kill_at, stop.reason) == (kill_at, StopReason.LEASE_LOST)


async def test_a_grace_that_has_passed_already_kills_now() -> None:
    stop = StopSignal()

    stop.order(StopReason.LEASE_LOST, grace=-5)

    assert stop.kill_at == pytest.approx(asyncio.get_running_loop().time(), abs=1)


async def test_an_attempt_that_is_granted_after_all_were_stopped_is_stopped() -> None:
    attempts = Attempts()
    attempts.stop_all(StopReason.AGENT_STOPPING, grace=1)
    attempt = Attempt.granted(make_grant(), asked_at=0.0)

    attempts.add(attempt)

    assert attempt.stop.reason is StopReason.AGENT_STOPPING


async def test_a_cancel_that_overtook_its_grant_stops_that_attempt_and_no_other() -> None:
    attempts, grant = Attempts(), make_grant()
    cancelled = Attempt.granted(grant, asked_at=0.0)
    other = Attempt.granted(grant.model_copy(update={"attempt": 2}), asked_at=0.0)
    attempts.cancel(grant.work.task_id, grant.attempt, grace=0)

    attempts.add(cancelled)
    attempts.add(other)

    assert (cancelled.stop.reason, other.stop.reason) == (StopReason.CANCELLED, None)
