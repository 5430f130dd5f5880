"""A repair as the contract sees the run that it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.rest.approvals import ApprovalState
from common.rest.repairs import RepairPriority, RepairStatus
from common.services import Requirement


@dataclass(frozen=True, slots=True)
class RepairRow:
    """A row of `run` that has a service. One that was cancelled counts as rolled back if its host says so, and else as
    failed: the contract knows no other end. `plan_steps` are the steps as they were planned, for people; lists have
    none.
    """

    run_id: UUID
    status: RepairStatus
    service: str
    instruction: str
    priority: RepairPriority
    gate: Requirement
    plan_steps: Sequence[Mapping[str, Any]]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "RepairRow":
        return cls(
            run_id=row["run_id"],
            status=RepairStatus(row["status"]),
            service=row["service"],
            instruction=row["instruction"],
            priority=RepairPriority(row["priority"]),
            gate=Requirement(row["gate"]),
            plan_steps=row["plan_steps"] or (),
            created_at=row["created_at"],
            started_at=row["started_at"],
            finished_at=row["finished_at"],
        )


@dataclass(frozen=True, slots=True)
class RepairFilter:
    """Which repairs are asked for: those that match everything given."""

    status: RepairStatus | None = None
    service: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """An approval of one of a repair's tasks. `approver` is who said the last yes, `voters` all who said it."""

    approval_id: UUID
    state: ApprovalState
    roles: Sequence[str]
    decided_at: datetime | None
    valid_until: datetime | None
    approver: str | None
    voters: Sequence[UUID]

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Asked":
        found = {name: value for name, value in row.items() if name != "run_id"}
        return cls(**{**found, "state": ApprovalState(row["state"])})


@dataclass(frozen=True, slots=True)
class Known:
    """A repair with the approvals of its tasks, the newest last."""

    row: RepairRow
    asked: Sequence[Asked] = ()

    @property
    def waits_for(self) -> Asked | None:
        """The approval that it waits for."""
        return next((one for one in reversed(self.asked) if one.state is ApprovalState.WAITING), None)
