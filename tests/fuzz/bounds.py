"""How much is tried. `CHIFFON_EXAMPLES` multiplies it, `CHIFFON_SEED` repeats a run."""

import os
import random

from hypothesis import HealthCheck, Phase, settings

MORE = int(os.environ.get("CHIFFON_EXAMPLES", "1"))
SEED = int(os.environ.get("CHIFFON_SEED") or random.randrange(2**32))


def bounded(examples: int) -> settings:
    """Return settings for so many examples, in whatever time they take."""
    return settings(
        max_examples=examples * MORE,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
