"""The leases that this orchestrator gave: what their results are told with, without asking the ledger again.

A memory of this process, which decides nothing: the statement that ends a task asks the ledger whether the lease lives.
Only what the event of the end says of the task comes from here. What is forgotten, or was given by another
orchestrator, is read.
"""

from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

from common.messages import WorkResult
from common.policy.model import Effect
from orchestrator.keys.model import has_keys
from orchestrator.tasks.model import NewTask, Task

# As many leases are remembered; what is remembered of each is less than a kilobyte.
MOST = 10_000


@dataclass(frozen=True, slots=True)
class GivenLease:
    """One attempt of a task, as it was given, and what events tell of the task."""

    task_id: UUID
    trace_id: UUID
    request_id: UUID
    effect: Effect
    work_digest: bytes | None
    approval_id: UUID | None
    agent_id: UUID
    attempt: int

    @classmethod
    def of(cls, task: Task | NewTask, agent_id: UUID, *, attempt: int) -> "GivenLease":
        return cls(
            task.task_id,
            task.trace_id,
            task.request_id,
            task.effect,
            task.work_digest,
            task.approval_id,
            agent_id,
            attempt,
        )


class GivenLeases:
    """Remembers the last leases of tasks without keys, for the end of one with keys concerns others."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._given: OrderedDict[UUID, GivenLease] = OrderedDict()

    def add(self, task: Task | NewTask, agent_id: UUID, *, attempt: int) -> None:
        """Remember a lease; it takes the place of an earlier one of its task."""
        self._given.pop(task.task_id, None)
        if not has_keys(task):
            self._given[task.task_id] = GivenLease.of(task, agent_id, attempt=attempt)
        if len(self._given) > self._most:
            self._given.popitem(last=False)

    def take(self, result: WorkResult) -> GivenLease | None:
        """Return the lease to which a result belongs, and forget it: what comes after its first result is read."""
        lease = self._given.get(result.task_id)
        if lease is None or (lease.attempt, lease.agent_id) != (result.attempt, result.agent_id):
            return None
        del self._given[result.task_id]
        return lease
