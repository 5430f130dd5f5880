"""An agent takes no work while its clock differs too much from the orchestrator's."""

from datetime import timedelta
from uuid import uuid4

import pytest

from agents.contact.clock_watch import ClockWatch
from agents.tasks.availability import Availability
from tests.fakes.clock import FakeClock

SKEW = timedelta(minutes=5)
HOURS = timedelta(hours=5)


def heard(watch: ClockWatch, clock: FakeClock, *, ahead: timedelta, took: float = 0.2) -> None:
    """Let a heartbeat be answered by an orchestrator whose clock this one is ahead of."""
    beat_id = uuid4()
    watch.sent(beat_id)
    clock.advance(seconds=took / 2)
    at = clock.now() - ahead
    clock.advance(seconds=took / 2)
    watch.heard(beat_id, at=at)


@pytest.mark.parametrize("ahead", [HOURS, -HOURS], ids=["ahead", "behind"])
async def test_the_gate_is_closed_while_the_clock_is_off_and_opens_when_it_is_set_right(
    ahead: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    availability, clock = Availability(), FakeClock()
    watch = ClockWatch(availability, clock, skew=SKEW)

    heard(watch, clock, ahead=ahead)
    heard(watch, clock, ahead=ahead)
    closed = availability.is_open
    heard(watch, clock, ahead=timedelta(0))

    assert not closed
    assert availability.is_open
    told = [record.msg for record in caplog.records if record.msg.startswith("agent.clock")]
    assert told == ["agent.clock_off", "agent.clock_right"]


@pytest.mark.parametrize("ahead", [timedelta(0), SKEW, -SKEW])
async def test_a_difference_within_what_is_allowed_holds_back_nothing(ahead: timedelta) -> None:
    availability, clock = Availability(), FakeClock()

    heard(ClockWatch(availability, clock, skew=SKEW), clock, ahead=ahead)

    assert availability.is_open


async def test_an_answer_that_took_too_long_or_is_not_to_this_process_tells_nothing() -> None:
    availability, clock = Availability(), FakeClock()
    watch = ClockWatch(availability, clock, skew=SKEW)

    heard(watch, clock, ahead=HOURS, took=SKEW.total_seconds() + 1)
    watch.heard(uuid4(), at=clock.now() - HOURS)

    assert availability.is_open
