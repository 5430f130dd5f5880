"""What waits in the outbox."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from common.messages import CancelTask
from common.orders import Drain, Leave, Pause, Resume


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
class Waiting:
    """A row of the outbox that is to be published."""

    id: int
    agent_id: UUID
    body: dict[str, Any]
