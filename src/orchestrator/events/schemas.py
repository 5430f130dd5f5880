"""What callers see of events."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class EventOut(BaseModel):
    """Something that happened."""

    model_config = ConfigDict(from_attributes=True, title="Event")

    seq: int = Field(description="Rises by one with every event, without a gap.")
    at: datetime
    kind: str = Field(examples=["task.claimed"])
    task_id: UUID | None
    trace_id: UUID | None
    request_id: UUID | None
    agent_id: UUID | None
    attempt: int | None
    actor: str = Field(description="Who did it: a caller, an agent's id, or the orchestrator.")
    data: dict[str, Any]


class EventPage(BaseModel):
    items: list[EventOut]
    next_after: int = Field(description="Pass it as `after` to get what comes next.")
