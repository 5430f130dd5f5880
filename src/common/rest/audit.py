"""The audit log, as auditors see it."""

from enum import StrEnum

from pydantic import Field

from common.rest.base import Answer
from common.rest.events import Event


class AuditResult(StrEnum):
    """How something ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class AuditEvent(Event):
    """An event as the audit log keeps it: of output only the digest."""

    hash: str | None = Field(
        description="Covers this event and all before it (hex); null from before there was a chain."
    )


class AuditPage(Answer):
    """A page of the audit log, oldest first."""

    items: list[AuditEvent] = Field(description="The events of this page.")
    next_after: int | None = Field(
        description="Pass it as `after` to go on, also when there are no items here; null at the end of the log."
    )
