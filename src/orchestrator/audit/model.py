"""What the audit log is checked against, what a check finds, and what can be asked of the log."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from common.rest.audit import AuditResult
from orchestrator.events.model import Event, Kind


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
    """What `signature` says: at this time the chain reached this event, and had this hash."""

    seq: int
    hash: bytes
    at: datetime
    signature: str


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


@dataclass(frozen=True, slots=True)
class Question:
    """Which events are wanted; what is None or empty does not matter. `since` counts, `until` does not any more."""

    actor: str | None = None
    task_id: UUID | None = None
    trace_id: UUID | None = None
    agent_id: UUID | None = None
    kinds: tuple[str, ...] = ()
    results: tuple[AuditResult, ...] = ()
    work_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_about_few(self) -> bool:
        """Say whether an index leads to all that is wanted."""
        return self.task_id is not None or self.trace_id is not None

    def wanted_kinds(self) -> list[str] | None:
        """Return the kinds of events that can match; None for all."""
        if not self.results:
            return list(self.kinds) or None
        ends = kinds_of(self.results)
        return sorted(ends & set(self.kinds) if self.kinds else ends)


@dataclass(frozen=True, slots=True)
class Page:
    """Some events. `next_after` leads on, also when there are no events here; None when the end was reached."""

    rows: list[Row]
    next_after: int | None


def kinds_of(results: Iterable[AuditResult]) -> set[str]:
    """Return the kinds of events that tell of these results."""
    ends = {
        AuditResult.COMPLETED: ("completed",),
        AuditResult.FAILED: ("failed",),
        AuditResult.CANCELLED: ("cancelled",),
        AuditResult.REFUSED: ("refused", "rejected"),
    }
    return {str(kind) for kind in Kind for result in results if kind.endswith(ends[result])}
