"""Who takes work, how much more of it, and what was leased to whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from orchestrator.tasks.model import NewTask, Task


@dataclass(frozen=True, slots=True)
class Asker:
    """An agent that takes up to `room` tasks of its pool.

    `claim_id` is its session or, over HTTP, its claim. `work_types` None means any; `without` are tasks that it does
    not get.
    """

    agent_id: UUID
    pool: str
    claim_id: UUID
    room: int
    lease: timedelta
    work_types: frozenset[str] | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)

    def takes(self, work_type: str) -> bool:
        return self.work_types is None or work_type in self.work_types


class Line(NamedTuple):
    """Tasks that wait and are alike: of one pool, one work type and one placement constraint (`aim`)."""

    pool: str
    work_type: str
    aim: str


@dataclass(frozen=True, slots=True)
class Leased:
    """One attempt that was just leased. `task` is as it was before; `credit` is that of `common.messages.Grant`."""

    task: Task | NewTask
    agent_id: UUID
    claim_id: UUID
    attempt: int
    fence: int
    lease: timedelta
    credit: int | None = None
