"""When a failed attempt is repeated, and how long is waited."""

from datetime import UTC, datetime, timedelta

import pytest

from common.backoff import exponential, full_jitter
from common.retry import GiveUp, Retry, RetryPolicy

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (19, 300)])
def test_waits_double_up_to_the_cap(attempt: int, seconds: int) -> None:
    decision = RetryPolicy().decide(retryable=True, attempt=attempt, max_attempts=20, now=NOW)

    assert decision == Retry(at=NOW + timedelta(seconds=seconds))


def test_what_failed_together_does_not_come_back_together() -> None:
    policy = RetryPolicy(jitter=0.25)

    waits = [policy.decide(retryable=True, attempt=3, max_attempts=5, now=NOW, chance=chance) for chance in (0, 0.5, 1)]

    assert waits == [Retry(at=NOW + timedelta(seconds=seconds)) for seconds in (3, 4, 5)]


def test_the_last_attempt_is_not_repeated() -> None:
    assert RetryPolicy().decide(retryable=True, attempt=3, max_attempts=3, now=NOW) == GiveUp()


def test_what_cannot_be_helped_by_repeating_is_not_repeated() -> None:
    assert RetryPolicy().decide(retryable=False, attempt=1, max_attempts=3, now=NOW) == GiveUp()


def test_jitter_stays_between_nothing_and_the_full_wait() -> None:
    base, cap = timedelta(seconds=1), timedelta(seconds=10)

    waits = [full_jitter(3, base=base, cap=cap) for _ in range(200)]

    assert min(waits) >= timedelta(0)
    assert max(waits) <= timedelta(seconds=4)
    assert len(set(waits)) > 100


def test_a_very_late_attempt_does_not_overflow() -> None:
    assert exponential(10_000, base=timedelta(seconds=1), cap=timedelta(minutes=5)) == timedelta(minutes=5)
