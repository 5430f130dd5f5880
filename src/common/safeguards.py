"""Safeguards that a test can take away, to see that its checks notice: a check that cannot fail proves nothing.

`CHIFFON_TEST_REMOVE` names one of them. Nothing starts with it unless `CHIFFON_TEST_REMOVE_ALLOWED` says that this is
meant, so that no slip takes a safeguard from a real system.
"""

import logging
import os
from enum import StrEnum
from functools import cache

from common.errors import StartupRefused

log = logging.getLogger(__name__)

REMOVE = "CHIFFON_TEST_REMOVE"
ALLOW = "CHIFFON_TEST_REMOVE_ALLOWED"
ALLOWED = "yes-this-is-a-test"


class Safeguard(StrEnum):
    """What each one is for."""

    FENCE = "fence"
    """A result counts only for the attempt that has the live lease."""
    REGRANT = "regrant"
    """Work that was leased to an agent which never heard of it is granted once more."""
    PERSISTENCE = "persistence"
    """The broker keeps messages on disk."""
    DEDUPE = "dedupe"
    """The same dispatch sent twice is one task."""
    SPOOL_FSYNC = "spool_fsync"
    """A result is on the agent's disk, past every cache, before it is sent."""
    SELF_FENCING = "self_fencing"
    """An agent that cannot renew stops its work before the lease ends."""
    SIGNATURE = "signature"
    """An agent runs only what a key that it trusts has signed."""
    REPLAY = "replay"
    """A grant counts for one process of its agent, once."""


class RemovalNotAllowed(StartupRefused):
    def __init__(self) -> None:
        super().__init__(
            f"{REMOVE} takes away a safeguard without which work is lost or runs twice. It is for tests only: unset it."
        )


class UnknownSafeguard(StartupRefused):
    def __init__(self, name: str) -> None:
        super().__init__(f"{REMOVE} = {name!r} is not a safeguard. There are: {', '.join(Safeguard)}.")


@cache
def removed() -> Safeguard | None:
    """Return the safeguard that this process does without; None in every real system. Raises `StartupRefused`."""
    name = os.environ.get(REMOVE)
    if not name:
        return None
    if os.environ.get(ALLOW) != ALLOWED:
        raise RemovalNotAllowed
    try:
        return Safeguard(name)
    except ValueError:
        raise UnknownSafeguard(name) from None


def is_on(safeguard: Safeguard) -> bool:
    return removed() is not safeguard


def check() -> None:
    """Every process calls this first; raises `StartupRefused` when a safeguard is to be taken away and may not."""
    if (safeguard := removed()) is not None:
        log.warning("safeguard.removed", extra={"safeguard": safeguard})
