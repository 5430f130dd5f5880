"""Bounds of random tests: `CHIFFON_EXAMPLES` multiplies how much is tried, `CHIFFON_SEED` repeats a run."""

import os
import random
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import HealthCheck, Phase, settings

Thing = TypeVar("Thing")

MORE = int(os.environ.get("CHIFFON_EXAMPLES", "1"))
SEED = int(os.environ.get("CHIFFON_SEED") or random.randrange(2**32))


def many(tries: int) -> int:
    """Return how often a thing is tried that the short form of the tests tries so often."""
    return tries * MORE


def some(things: Sequence[Thing], tries: int) -> Sequence[Thing]:
    """Return as many of these things as are tried, by chance, in their order; all of them where there are no more."""
    chosen = random.Random(SEED).sample(range(len(things)), min(many(tries), len(things)))
    return [things[place] for place in sorted(chosen)]


def bounded(examples: int) -> settings:
    """Return settings for so many examples, in whatever time they take."""
    return settings(
        max_examples=many(examples),
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
