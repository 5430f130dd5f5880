"""What waits in the outbox."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from common.messages import CancelTask, Ticket
from common.orders import Drain, Leave, Pause, Resume


@dataclass(frozen=True, slots=True)
class NewTicket:
    """A ticket to publish for a task that waits. `due_at` None means now; `aim` is empty for anybody of the pool.

    One that `is_returned` is for a task that was handed back untouched: it is placed on an agent, so that others than
    those that refused the task go first.
    """

    task_id: UUID
    trace_id: UUID
    request_id: UUID
    work_type: str
    agent_type: str
    priority: int
    fence: int
    due_at: datetime | None = None
    aim: str = ""
    is_returned: bool = False

    @property
    def recipient(self) -> str:
        """The queue of the outbox: that of the pool, or of what is placed in it, or of an aim within it."""
        if self.aim:
            return f"aim:{self.aim}"
        return f"aim:~{self.agent_type}" if self.is_returned else self.agent_type

    @property
    def message(self) -> Ticket:
        return Ticket(task_id=self.task_id, work_type=self.work_type, fence=self.fence)

    def body(self) -> dict[str, Any]:
        return {
            "payload": {"task_id": str(self.task_id), "work_type": self.work_type, "fence": self.fence},
            "trace_id": str(self.trace_id),
            "request_id": str(self.request_id),
        }


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order to publish to one agent. One about a task names the task's trace and request."""

    agent_id: UUID
    order: CancelTask | Pause | Drain | Resume | Leave
    trace_id: UUID | None = None
    request_id: UUID | None = None

    @property
    def task_id(self) -> UUID | None:
        return self.order.task_id if isinstance(self.order, CancelTask) else None

    def body(self) -> dict[str, Any]:
        return {
            "payload": {"order": self.order.model_dump(mode="json")},
            "trace_id": None if self.trace_id is None else str(self.trace_id),
            "request_id": None if self.request_id is None else str(self.request_id),
        }


@dataclass(frozen=True, slots=True)
class DueTask:
    """A task whose ticket is to be published, with the fence that the ticket names."""

    task_id: UUID
    fence: int
    work_type: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row of the outbox that is to be published. `recipient` is an agent type or, for an order, an agent's id.

    `urgency` is the priority, raised by one for each time of ageing that the task has waited, at most to 5.
    """

    id: int
    recipient: str
    priority: int
    urgency: int
    body: dict[str, Any]
