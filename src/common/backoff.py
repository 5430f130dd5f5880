"""How long to wait before trying again."""

import random
from datetime import timedelta


def exponential(attempt: int, *, base: timedelta, cap: timedelta) -> timedelta:
    """Return `base * 2**(attempt - 1)`, at most `cap`; `attempt` counts from 1."""
    doublings: int = 2 ** min(max(attempt - 1, 0), 32)
    return min(base * doublings, cap)


def full_jitter(attempt: int, *, base: timedelta, cap: timedelta) -> timedelta:
    """Return a random wait between zero and the exponential one, so that many who lost the same server do not
    come back in step ("full jitter": Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015).
    """
    return exponential(attempt, base=base, cap=cap) * random.random()  # noqa: S311 - spreads load, guards nothing
