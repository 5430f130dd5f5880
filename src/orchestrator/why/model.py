"""What is known of a task that waits, and what is in its way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from common.lifecycle import Status
from common.rest.why import BlockerKind
from orchestrator.placement.model import Aim
from orchestrator.registry.model import MayWork
from orchestrator.tasks.model import Task

# An answer names at most so many agents or tasks of a kind; its numbers are exact all the same.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """An agent, as far as it decides about work. `running` counts the ledger's leases, not what the agent says.

    `work_types` is what it offers; empty while it has not said. `asks_for` is how many more tasks it takes by its
    credit; None for an agent that claims over HTTP.
    """

    agent_id: UUID
    name: str
    agent_type: str
    hostname: str
    online: bool
    last_heartbeat_at: datetime
    slots: int
    running: int
    work_types: Sequence[str] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)
    draining: bool = False
    drained_by: str | None = None
    drain_note: str | None = None
    paused_until: datetime | None = None
    paused_by: str | None = None
    pause_note: str | None = None
    clock_off_by: timedelta | None = None
    tripped_until: datetime | None = None
    trip_reason: str | None = None
    may_work: MayWork = MayWork.FREE
    asks_for: int | None = None

    @property
    def free_slots(self) -> int:
        """How many more tasks it could begin now, if it may have work."""
        free = self.slots - self.running if self.asks_for is None else min(self.slots - self.running, self.asks_for)
        return max(0, free)

    def takes(self, work_type: str) -> bool:
        """Return whether it offers this type of work; an agent that has not said takes any."""
        return not self.work_types or work_type in self.work_types


@dataclass(frozen=True, slots=True)
class OrderFacts:
    """The ordering key of a task: how many unfinished tasks come before it, and which is the first of them."""

    ahead: int
    first: UUID | None = None
    first_status: Status | None = None


@dataclass(frozen=True, slots=True)
class LimitFacts:
    """The concurrency key of a task: its limit, who is on the way, and how many of those that wait go before it."""

    limit: int
    on_the_way: Sequence[UUID]
    ahead: int


@dataclass(frozen=True, slots=True)
class ApprovalFacts:
    """The approval that a task awaits: who must say yes, and who did."""

    approval_id: UUID
    approvers: int
    yes: int
    roles: Sequence[str]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class RefusalFacts:
    """An agent that gave a task back before anything of it ran: how often, when last, and why."""

    agent_id: UUID
    hostname: str | None
    times: int
    at: datetime
    reason: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that decides why a task waits, as it was at one moment.

    `ahead` is how many tasks that may be leased go before it; None for one that is not admitted.
    """

    task: Task
    now: datetime
    agents: Sequence[AgentFacts] = ()
    aim: Aim | None = None
    ahead: int | None = None
    order: OrderFacts | None = None
    limit: LimitFacts | None = None
    approval: ApprovalFacts | None = None
    refusals: Sequence[RefusalFacts] = ()
    broker_failure: str | None = None
    giving_failure: str | None = None


@dataclass(frozen=True, slots=True)
class AgentRef:
    """An agent as an answer names it."""

    agent_id: UUID
    hostname: str
    running: int | None = None
    slots: int | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that is in the way, in words and as data. What does not belong to its kind is None."""

    kind: BlockerKind
    message: str
    at: datetime | None = None
    by: str | None = None
    note: str | None = None
    key: str | None = None
    limit: int | None = None
    ahead: int | None = None
    task_ids: Sequence[UUID] | None = None
    agents: Sequence[AgentRef] | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether a task waits and for what; for one that does not, its only entry says where it stands."""

    task_id: UUID
    status: Status
    waiting: bool
    blockers: Sequence[Blocker]
