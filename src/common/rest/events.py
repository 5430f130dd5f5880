"""Events, as readers see them over REST and WebSocket."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from common.rest.base import Answer

FINAL_EVENTS = frozenset({"task.completed", "task.failed", "task.cancelled"})


class Event(Answer):
    """One row of the ledger: what happened, when, by whom."""

    seq: int = Field(description="Rises by one with every event, without a gap.")
    at: datetime = Field(description="When it happened.")
    kind: str = Field(description="What happened.", examples=["task.claimed"])
    task_id: UUID | None = Field(description="The task that it is about.")
    trace_id: UUID | None = Field(description="The trace of that task.")
    request_id: UUID | None = Field(description="The idempotency key of that task.")
    agent_id: UUID | None = Field(description="The agent that it is about.")
    attempt: int | None = Field(description="The attempt that it is about.")
    actor: str = Field(description="Who did it: a caller, an agent's id, or the orchestrator.")
    data: dict[str, Any] = Field(description="The rest, by kind of event.")

    @property
    def ends_a_task(self) -> bool:
        """True when this is the last event of a task but for late output."""
        return self.kind in FINAL_EVENTS

    @property
    def progress(self) -> str | None:
        """A report of where the task stands, empty when an attempt begins; None for an event that is about neither."""
        if self.kind == "task.progress":
            return str(self.data["progress"])
        return "" if self.kind == "task.claimed" else None


class EventPage(Answer):
    """A page of events, oldest first."""

    items: list[Event] = Field(description="The events of this page.")
    next_after: int = Field(description="Pass it as `after` to get what comes next.")
