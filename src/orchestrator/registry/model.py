"""An agent as the registry knows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.messages import AgentStatus


@dataclass(frozen=True, slots=True)
class Agent:
    """A row of `agent`; `status` is what the agent said last, or `offline` once it has fallen silent."""

    agent_id: UUID
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

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Agent":
        return cls(**{**row, "status": AgentStatus(row["status"])})


@dataclass(frozen=True, slots=True)
class Before:
    """What was known of an agent before its heartbeat; None for one that is new."""

    agent_id: UUID
    status: AgentStatus | None
    started_at: datetime | None
