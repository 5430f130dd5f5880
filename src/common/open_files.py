"""Raise how many files and connections this process may have open."""

import resource
from functools import cache


@cache
def raise_open_files() -> int:
    """Raise the soft limit to the hard one; return the soft limit that this process was started with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft
