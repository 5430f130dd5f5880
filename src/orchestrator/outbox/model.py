"""What waits in the outbox."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from common.messages import CancelTask, Ticket


@dataclass(frozen=True, slots=True)
class NewTicket:
    """A ticket to publish for a task that waits. `due_at` None means now."""

    task_id: UUID
    trace_id: UUID
    request_id: UUID
    work_type: str
    agent_type: str
    priority: int
    fence: int
    due_at: datetime | None = None

    def body(self) -> dict[str, Any]:
        ticket = Ticket(task_id=self.task_id, work_type=self.work_type, fence=self.fence)
        return {
            "payload": ticket.model_dump(mode="json"),
            "trace_id": str(self.trace_id),
            "request_id": str(self.request_id),
        }


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order to publish to one agent."""

    agent_id: UUID
    trace_id: UUID
    request_id: UUID
    order: CancelTask

    def body(self) -> dict[str, Any]:
        return {
            "payload": {"order": self.order.model_dump(mode="json")},
            "trace_id": str(self.trace_id),
            "request_id": str(self.request_id),
        }


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row of the outbox that is to be published. `recipient` is an agent type or, for an order, an agent's id."""

    id: int
    recipient: str
    priority: int
    body: dict[str, Any]
