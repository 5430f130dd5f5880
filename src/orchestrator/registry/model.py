"""An agent as the registry knows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from common.messages import AgentStatus


@dataclass(frozen=True, slots=True)
class Agent:
    """A row of `agent`; `status` is what the agent said last, or `offline` once it has fallen silent.

    `name` is the one under which it enrolled, and else that of its host.
    A pause or a trip that is over is not shown any more. `clock_off_seconds` is how far its clock is ahead, or behind
    when negative; None while that is within what is allowed. `schemas` are the JSON Schemas that it announced, by work
    type; it may not offer all of these any longer.
    """

    agent_id: UUID
    name: str
    agent_type: str
    status: AgentStatus
    hostname: str
    version: str
    work_types: Sequence[str]
    slots: int
    current_tasks: Sequence[UUID]
    resources: Mapping[str, Any]
    started_at: datetime
    last_heartbeat_at: datetime
    labels: Mapping[str, Any] = field(default_factory=dict)
    paused_until: datetime | None = None
    paused_by: str | None = None
    pause_note: str | None = None
    draining: bool = False
    drain_note: str | None = None
    tripped_until: datetime | None = None
    trip_reason: str | None = None
    clock_off_seconds: float | None = None
    schemas: Mapping[str, Any] = field(default_factory=dict)

    @property
    def free_slots(self) -> int:
        """How many more tasks it could begin, by what it said last."""
        return 0 if self.status is AgentStatus.OFFLINE else max(0, self.slots - len(self.current_tasks))

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Agent":
        return cls(**{**row, "status": AgentStatus(row["status"])})


class Room(NamedTuple):
    """The credit of an agent after a statement: how many more tasks it takes, its newest message's number, and how many
    tasks its session was granted.
    """

    agent_id: UUID
    room: int
    credit: int
    granted: int


class MayWork(StrEnum):
    """Whether an agent may be given work. The SQL function `agent_may_work` returns the same words."""

    FREE = "free"
    TRIAL = "trial"
    TRIPPED = "tripped"
    CLOCK_OFF = "clock_off"
    PAUSED = "paused"
    DRAINING = "draining"
    UNREGISTERED = "unregistered"
    SHUT_OUT = "shut_out"


@dataclass(frozen=True, slots=True)
class Known:
    """The pool of an agent, which never changes, and the labels that were pinned when it was invited to enrol.

    `pinned` is None for an agent without an identity: its pool is the one that it registered with first.
    """

    agent_type: str
    pinned: Mapping[str, Any] | None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Known":
        return cls(row["agent_type"], row["pinned"])


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether an agent may have work, and why not: what people ordered, and what the circuit breaker holds.

    `shut_out`: its identity was disabled, so that it gets nothing, ever.
    """

    agent_id: UUID
    status: AgentStatus
    started_at: datetime
    paused_until: datetime | None = None
    paused_by: str | None = None
    pause_note: str | None = None
    draining: bool = False
    drain_note: str | None = None
    failures_in_row: int = 0
    tripped_until: datetime | None = None
    trip_reason: str | None = None
    clock_off_by: timedelta | None = None
    boot_id: UUID | None = None
    boot_before: UUID | None = None
    boot_refused: UUID | None = None
    shut_out: bool = False

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Standing":
        return cls(**{**row, "status": AgentStatus(row["status"])})
