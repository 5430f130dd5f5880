"""The life cycle of a task: one table and one pure function.

The CHECK and the guard trigger in the database say the same; a test compares them with this table.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from common.errors import Conflict


class Status(StrEnum):
    """Where a task stands. The last three are final: nothing leaves them."""

    AWAITING_APPROVAL = "awaiting_approval"
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in FINAL


class Change(StrEnum):
    """What can happen to a task."""

    APPROVE = "approve"
    REJECT = "reject"
    CLAIM = "claim"
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY = "retry"
    LOSE_LEASE = "lose_lease"
    CANCEL = "cancel"


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})

TRANSITIONS: Mapping[tuple[Status, Change], Status] = MappingProxyType(
    {
        (Status.AWAITING_APPROVAL, Change.APPROVE): Status.PENDING,
        (Status.AWAITING_APPROVAL, Change.REJECT): Status.CANCELLED,
        (Status.AWAITING_APPROVAL, Change.CANCEL): Status.CANCELLED,
        (Status.PENDING, Change.CLAIM): Status.RUNNING,
        (Status.PENDING, Change.CANCEL): Status.CANCELLED,
        (Status.RUNNING, Change.SUCCEED): Status.COMPLETED,
        (Status.RUNNING, Change.FAIL): Status.FAILED,
        (Status.RUNNING, Change.RETRY): Status.PENDING,
        (Status.RUNNING, Change.LOSE_LEASE): Status.PENDING,
        (Status.RUNNING, Change.CANCEL): Status.CANCELLED,
    }
)


class InvalidTransition(Conflict):
    """The table has no such move."""

    def __init__(self, status: Status, change: Change) -> None:
        super().__init__(f"A task that is {status} does not allow the change {change.value!r}.")
        self.status = status
        self.change = change


def next_status(status: Status, change: Change) -> Status:
    """Return the status that follows, or raise `InvalidTransition` if the table has no such move."""
    try:
        return TRANSITIONS[status, change]
    except KeyError:
        raise InvalidTransition(status, change) from None
