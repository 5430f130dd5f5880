"""The jobs whose leases this agent holds, from the claim until the server knows how they ended."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from common.rest.jobs import Job, JobGrant


@dataclass(slots=True, eq=False)
class HeldJob:
    """`lease_from`: on the monotonic clock, a moment before the server began to count the lease. `claim_id`: what was
    asked with; `grant` and `signature`: what the server signed.

    `is_granted`: the agent has it, and reports its end. `is_cancelled`: the agent was told to stop it.
    """

    job: Job
    lease_from: float
    claim_id: UUID
    grant: JobGrant | None = None
    signature: str | None = None
    is_granted: bool = False
    is_cancelled: bool = False


class HeldJobs:
    """All of them, by task and attempt. `some` is set while there are any."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[UUID, int], HeldJob] = {}
        self.some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[HeldJob]:
        return iter(list(self._jobs.values()))

    def add(self, held: HeldJob) -> None:
        self._jobs[held.job.id, held.job.attempt] = held
        self.some.set()

    def find(self, task_id: UUID, attempt: int) -> HeldJob | None:
        return self._jobs.get((task_id, attempt))

    def drop(self, task_id: UUID, attempt: int) -> None:
        """The server knows how it ended, or gave it to another worker."""
        self._jobs.pop((task_id, attempt), None)
        if not self._jobs:
            self.some.clear()
