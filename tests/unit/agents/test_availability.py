"""New work is taken, or not, as the orders say."""

from datetime import UTC, datetime, timedelta

import pytest

from agents.tasks.availability import Availability, time_left
from tests.eventually import eventually

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_a_pause_ends_by_itself() -> None:
    availability = Availability()
    availability.pause(soon(0.1), ordered_at=datetime.now(UTC))

    assert not availability.is_open
    assert not availability.is_leaving
    await eventually(lambda: availability.is_open)


async def test_a_pause_whose_end_has_passed_changes_nothing() -> None:
    availability = Availability()

    availability.pause(soon(-1), ordered_at=soon(-5))

    assert availability.is_open


async def test_a_later_pause_replaces_an_earlier_one() -> None:
    availability = Availability()
    availability.pause(soon(3600), ordered_at=datetime.now(UTC))

    availability.pause(soon(0.05), ordered_at=datetime.now(UTC))

    await eventually(lambda: availability.is_open)


async def test_resume_undoes_pause_and_drain() -> None:
    availability = Availability()
    availability.pause(soon(3600), ordered_at=datetime.now(UTC))
    availability.drain()
    assert availability.is_leaving

    availability.resume()

    assert availability.is_open
    assert not availability.is_leaving


async def test_the_end_of_a_pause_does_not_undo_a_drain() -> None:
    availability = Availability()
    availability.drain()
    availability.pause(soon(0.01), ordered_at=datetime.now(UTC))
    availability.changed = type(availability.changed)()

    await availability.changed.rung()

    assert not availability.is_open


async def test_an_agent_that_stops_cannot_be_resumed() -> None:
    availability = Availability()
    availability.stop()

    availability.resume()

    assert not availability.is_open


@pytest.mark.parametrize(
    ("host_is_ahead", "came_after", "expected"),
    [
        (0, 0, 600),  # both clocks agree
        (0, 60, 540),  # the order waited in the queue
        (-3600, 0, 600),  # the host's clock is behind: no longer than was meant
        (3600, 0, -3000),  # it is ahead: over already, and the orchestrator refuses by itself
    ],
)
def test_a_pause_is_never_longer_than_was_meant(host_is_ahead: int, came_after: int, expected: int) -> None:
    now = NOON + timedelta(seconds=host_is_ahead + came_after)

    left = time_left(NOON + timedelta(seconds=600), ordered_at=NOON, now=now)

    assert left == timedelta(seconds=expected)


def test_a_time_without_a_zone_is_utc() -> None:
    left = time_left(NOON.replace(tzinfo=None) + timedelta(seconds=9), ordered_at=NOON.replace(tzinfo=None), now=NOON)

    assert left == timedelta(seconds=9)
