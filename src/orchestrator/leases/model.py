"""Who takes work, how much more of it, what was leased to whom, and how that ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from common.lifecycle import Status
from common.messages import WorkResult
from orchestrator.tasks.model import NewTask, Task


@dataclass(frozen=True, slots=True)
class Asker:
    """An agent that takes up to `room` tasks of its pool.

    `claim_id` is its session or, over HTTP, its claim. `work_types` None means any.
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
    """One attempt that was just leased. `task` is as it was before; `credit`, `granted` and `again` are
    those of `common.messages.Grant`.
    """

    task: Task | NewTask
    agent_id: UUID
    claim_id: UUID
    attempt: int
    lease: timedelta
    credit: int | None = None
    granted: int | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended; `status` is that of its task, None for a task that waits again or was cancelled before.

    `counts`: whether the attempt was a start of the work.
    """

    task_id: UUID
    attempt: int
    outcome: str
    status: Status | None = None
    output: str = ""
    exit_code: int | None = None
    error_code: int | None = None
    error_message: str | None = None
    duration_ms: int | None = None
    output_bytes: dict[str, int] | None = None
    output_dropped: dict[str, int] | None = None
    artifacts_path: str | None = None
    result: Any = None
    counts: bool = True

    @classmethod
    def of(cls, result: WorkResult, status: Status | None) -> "End":
        """Return what a result says."""
        return cls(
            result.task_id,
            result.attempt,
            outcome=result.status,
            status=status,
            output=result.output,
            exit_code=result.exit_code,
            error_code=result.error_code,
            error_message=result.error_message,
            duration_ms=result.duration_ms,
            output_bytes={stream.value: size for stream, size in result.output_bytes.items()},
            output_dropped={stream.value: size for stream, size in result.output_dropped.items()} or None,
            artifacts_path=result.artifacts_path,
            result=result.result,
        )
