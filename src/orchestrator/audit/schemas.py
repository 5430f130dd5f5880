"""What auditors see."""

from pydantic import BaseModel, Field

from orchestrator.audit.model import Page, Row
from orchestrator.events.schemas import EventOut


class AuditEvent(EventOut):
    """An event as the audit log keeps it: of output only the digest."""

    hash: str | None = Field(description="Covers this event and all before it; null from before there was a chain.")

    @classmethod
    def of(cls, row: Row) -> "AuditEvent":
        event = EventOut.model_validate(row.event)
        return cls(**dict(event), hash=None if row.hash is None else row.hash.hex())


class AuditPage(BaseModel):
    items: list[AuditEvent]
    next_after: int | None = Field(
        description="Pass it as `after` to go on, also when there are no items here; null at the end of the log."
    )

    @classmethod
    def of(cls, page: Page) -> "AuditPage":
        return cls(items=[AuditEvent.of(row) for row in page.rows], next_after=page.next_after)
