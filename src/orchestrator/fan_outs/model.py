"""Which agents the same work goes to, and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from common.lifecycle import Status
from orchestrator.tasks.model import Task


@dataclass(frozen=True, slots=True)
class Selector:
    """Which agents: those that are named, or all that have these labels; no labels mean every agent of the pool."""

    agents: Sequence[str] | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pace:
    """How many agents work at a time, as a number or as a percentage like "10%"; and how many failures end it.

    None: all at a time, and to the end.
    """

    batch: int | str | None = None
    stop_after_failures: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """An agent that gets a task."""

    agent_id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """An agent that the selector means and that gets no task."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The agents that get a task, and those that do not."""

    targets: Sequence[Target]
    skipped: Sequence[Skipped] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """The task of one agent."""

    target: Target
    task_id: UUID
    status: Status
    approval_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A fan-out that was accepted, now or at an earlier call with the same id."""

    fan_out_id: UUID
    request_id: UUID
    trace_id: UUID
    parts: Sequence[Part]
    skipped: Sequence[Skipped]


@dataclass(frozen=True, slots=True)
class FanOut:
    """A fan-out as it stands: its tasks, each with the name of the agent that it is for."""

    fan_out_id: UUID
    tasks: Sequence[Task]
