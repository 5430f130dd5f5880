"""New work is taken, or not, as the orders say."""

from datetime import UTC, datetime, timedelta

import pytest

from agents.gate import Gate, time_left
from tests.eventually import eventually

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_a_pause_ends_by_itself() -> None:
    gate = Gate()
    turn = gate.turn
    gate.pause(soon(0.1), ordered_at=datetime.now(UTC))

    assert not gate.is_open
    assert not gate.is_leaving
    assert turn.is_set()
    await eventually(lambda: gate.is_open)
    assert not gate.turn.is_set()


async def test_a_pause_whose_end_has_passed_changes_nothing() -> None:
    gate = Gate()

    gate.pause(soon(-1), ordered_at=soon(-5))

    assert gate.is_open


async def test_a_later_pause_replaces_an_earlier_one() -> None:
    gate = Gate()
    gate.pause(soon(3600), ordered_at=datetime.now(UTC))

    gate.pause(soon(0.05), ordered_at=datetime.now(UTC))

    await eventually(lambda: gate.is_open)


async def test_resume_undoes_pause_and_drain() -> None:
    gate = Gate()
    gate.pause(soon(3600), ordered_at=datetime.now(UTC))
    gate.drain()
    assert gate.is_leaving

    gate.resume()

    assert gate.is_open
    assert not gate.is_leaving


async def test_the_end_of_a_pause_does_not_undo_a_drain() -> None:
    gate = Gate()
    gate.drain()
    gate.pause(soon(0.01), ordered_at=datetime.now(UTC))
    gate.changed = type(gate.changed)()

    await gate.changed.rung()

    assert not gate.is_open


async def test_an_agent_that_stops_cannot_be_resumed() -> None:
    gate = Gate()
    gate.stop()

    gate.resume()

    assert not gate.is_open


async def test_reopening_ends_the_turn_of_every_consumer_and_leaves_the_gate_open() -> None:
    gate = Gate()
    turn = gate.turn

    gate.reopen()

    assert turn.is_set()
    assert gate.is_open
    assert not gate.turn.is_set()


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
