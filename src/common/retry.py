"""Whether a failed attempt is repeated, and when."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from common.backoff import exponential


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, not before `at`."""

    at: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The task fails for good."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Repeat a retryable failure while attempts remain, waiting 1 s, 2 s, 4 s, … at most `cap`.

    A wait is longer or shorter by up to the share `jitter`, so that what failed together does not come back together.
    """

    base: timedelta = timedelta(seconds=1)
    cap: timedelta = timedelta(minutes=5)
    jitter: float = 0.25

    def wait(self, failures: int) -> timedelta:
        """Return how long to wait after so many failures in a row, without jitter."""
        return exponential(failures, base=self.base, cap=self.cap)

    def decide(
        self, *, retryable: bool, attempt: int, max_attempts: int, now: datetime, chance: float = 0.5
    ) -> Retry | GiveUp:
        """Say whether the attempt that just failed (counting from 1) is followed by another.

        `chance`, from 0 to 1, is where in the range of the jitter the wait lies; 0.5 is its middle.
        """
        if not retryable or attempt >= max_attempts:
            return GiveUp()
        spread = 1 + self.jitter * (2 * chance - 1)
        return Retry(at=now + self.wait(attempt) * spread)
