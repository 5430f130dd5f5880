"""Which of the agent's environment variables work may see."""

import os
from collections.abc import Iterable


def inherited(allowed: Iterable[str]) -> dict[str, str]:
    """Return the allowed variables that are set; everything else, such as credentials of the agent, stays here."""
    return {name: os.environ[name] for name in allowed if name in os.environ}
