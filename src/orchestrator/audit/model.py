"""What the audit log is checked against, and what a check finds."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestrator.events.model import Event


@dataclass(frozen=True, slots=True)
class Row:
    """An event as it stands in the ledger; `text_digest` is that of the output it tells of, None without any."""

    event: Event
    hash: bytes | None
    text_digest: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """A number and a hash: where the chain begins, or how far it reaches, as `event_head` says."""

    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What somebody signed: at this time the chain reached this event, and had this hash."""

    seq: int
    hash: bytes
    at: datetime
    key_id: str
    signature: bytes


class Flaw(StrEnum):
    """What was done to the log."""

    EDITED = "edited"
    REMOVED = "removed"
    INSERTED = "inserted"
    SWAPPED = "swapped"
    TRUNCATED = "truncated"
    FORKED = "forked"
    OUTPUT_EDITED = "output edited"
    OUTPUT_REMOVED = "output removed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The first thing that is wrong. `seq` is the first event that does not fit, `through` the last that it concerns.

    Whoever can compute hashes can make a part that was rewritten fit itself; what is proven lies before `unproven`: up
    to there checkpoints, or the chain's begin, agree.
    """

    flaw: Flaw
    seq: int
    through: int
    unproven: int
    reason: str
