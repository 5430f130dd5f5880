"""A run as it is started and as the ledger holds it, and the rows that link it to its tasks."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import asyncpg

from common.canonical import canonical_json
from common.errors import InvalidField
from common.lifecycle import Status
from common.plans.model import Plan, plan_digest
from common.plans.read import plan_of
from common.plans.status import RunStatus
from common.rest.identities import Permission, PrincipalKind, Role
from common.rest.runs import RunStepStatus, StepKind
from orchestrator.identities.model import Caller, Provenance
from orchestrator.runs.history import StepKey
from orchestrator.steps.model import TaskStep

# Why a run ends otherwise than by success; an abandoned one ends as it stands, and nothing is undone.
Ending = Literal["failed", "cancelled", "abandoned"]


def service_of(about: Mapping[str, Any]) -> str | None:
    """Return the service that a run repairs, if it does: only the orchestrator says this of a run."""
    service = about.get("service")
    return service if isinstance(service, str) else None


@dataclass(frozen=True, slots=True)
class NewRun:
    """A plan to run, checked. Of the runs with one `key` one runs at a time; `about` is for who asks for it."""

    run_id: UUID
    request_id: UUID
    trace_id: UUID
    name: str
    plan: Plan
    inputs: Mapping[str, Any]
    requested_by: Caller
    key: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> bytes:
        """SHA-256 over what is asked for, without the ids: the same digest means the same run."""
        asked = {
            "plan": plan_digest(self.plan, self.inputs).hex(),
            "name": self.name,
            "key": self.key,
            "about": dict(self.about),
        }
        return hashlib.sha256(canonical_json(asked)).digest()


@dataclass(frozen=True, slots=True)
class KnownRun:
    """Under which ids a run is known, and what it was asked to do."""

    run_id: UUID
    request_id: UUID
    digest: bytes


@dataclass(frozen=True, slots=True)
class Summary:
    """A row of `run` without the plan. `service` is the one that it repairs, if it does; `requested_by` is a name."""

    run_id: UUID
    request_id: UUID
    trace_id: UUID
    name: str
    status: RunStatus
    key: str | None
    service: str | None
    requested_by: str
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error_message: str | None
    cancelled_by: str | None

    @classmethod
    def from_row(cls, row: asyncpg.Record | Mapping[str, Any]) -> "Summary":
        return cls(**{**row, "status": RunStatus(row["status"])})


@dataclass(frozen=True, slots=True)
class Run:
    """A row of `run`. Its tasks are dispatched in the name of `requested_by`; `ending` is set once it cannot succeed.

    One that has a key and is not `admitted` waits for others of the key. `starter_is_disabled`: since it was started.
    `plan_problem`: the plan in the ledger is none that this version knows, and `plan` has no steps.
    """

    run_id: UUID
    request_id: UUID
    trace_id: UUID
    name: str
    plan: Plan
    inputs: Mapping[str, Any]
    status: RunStatus
    key: str | None
    admitted: bool
    about: Mapping[str, Any]
    requested_by: Caller
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    ending: Ending | None
    error_message: str | None
    cancelled_by: str | None
    starter_is_disabled: bool = False
    plan_problem: str | None = None

    @property
    def title(self) -> str:
        """What people call it: its name, or its id."""
        return self.name or str(self.run_id)

    @property
    def waits_in_line(self) -> bool:
        """Whether others of its key may have to end before it begins."""
        return self.key is not None and not self.admitted

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Run":
        typed = {"status": RunStatus(row["status"]), "requested_by": caller_from(row["requested_by"])}
        try:
            return cls(**{**row, **typed, "plan": plan_of(row["plan"])})
        except InvalidField as problem:
            no_plan = Plan.model_construct(steps=[])
            return cls(**{**row, **typed, "plan": no_plan, "plan_problem": f"this version cannot read it: {problem}"})


@dataclass(frozen=True, slots=True)
class NewLink:
    """A step or an undo that begins: its task, or the problem that keeps it from having one.

    `parameters` and `hints` are those of the task where the plan does not give them literally. `pause` is kept with the
    task only.
    """

    step: str
    kind: StepKind
    number: int
    task_id: UUID | None = None
    parameters: Mapping[str, Any] | None = None
    hints: Mapping[str, Any] | None = None
    problem: str | None = None
    pause: timedelta = timedelta(0)


# A step whose result or output is looked at, and the step for which that is as long as it has not begun; None: always.
ToldFor = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Link:
    """A row of `run_step` with what its task has come to; `status` is None as long as there is no such task.

    `is_stopping`: it was cancelled while it ran, and may run until its agent has said that it has stopped.
    """

    step: str
    kind: StepKind
    number: int
    task_id: UUID | None
    parameters: Mapping[str, Any] | None
    hints: Mapping[str, Any] | None
    problem: str | None
    superseded: bool
    at: datetime
    work_type: str | None = None
    status: Status | None = None
    attempt: int = 0
    agent_id: UUID | None = None
    agent_name: str | None = None
    approval_id: UUID | None = None
    progress: str = ""
    result: Any = None
    output: str = ""
    exit_code: int | None = None
    error_message: str | None = None
    error_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    is_stopping: bool = False

    @property
    def key(self) -> StepKey:
        return self.step, self.kind

    @property
    def awaits_dispatch(self) -> bool:
        """Whether its task is yet to be dispatched, or was and is not in the ledger."""
        return self.task_id is not None and self.status is None and self.problem is None

    @property
    def is_open(self) -> bool:
        """Whether its task has not ended in the ledger."""
        return self.problem is None and self.status is not None and not self.status.is_final

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Link":
        status = None if row["status"] is None else Status(row["status"])
        return cls(**{**row, "kind": StepKind(row["kind"]), "status": status})


@dataclass(frozen=True, slots=True)
class StepView:
    """A step as people see it: how it stands, its row and its task if it has begun, and what its host does inside."""

    step: str
    kind: StepKind
    status: RunStepStatus
    work_type: str
    problem: str = ""
    link: Link | None = None
    inner: Sequence[TaskStep] = ()


@dataclass(frozen=True, slots=True)
class RunView:
    """A run with its steps in the order of the plan, then what undoes them; `earlier` are rows that others replaced.

    `waits_for` is the run of the same key that goes before it.
    """

    run: Run
    steps: Sequence[StepView]
    earlier: Sequence[StepView] = ()
    waits_for: UUID | None = None


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are asked for: those that match everything given. `before` is where the last page ended."""

    status: RunStatus | None = None
    name: str | None = None
    service: str | None = None
    before: tuple[datetime, UUID] | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """An open run as a sweep sees it; `fingerprint` differs once something has happened to it or to its tasks."""

    run_id: UUID
    trace_id: UUID
    fingerprint: str


def stored_caller(caller: Caller) -> dict[str, Any]:
    """Return who starts a run as JSON, with all that approvals ask about the one who dispatches."""
    token = caller.token
    return {
        "principal_id": str(caller.principal_id),
        "kind": caller.kind.value,
        "name": caller.name,
        "roles": sorted(caller.roles),
        "permissions": sorted(caller.permissions),
        "token_id": None if caller.token_id is None else str(caller.token_id),
        "agent_id": None if caller.agent_id is None else str(caller.agent_id),
        "token": None
        if token is None
        else {
            "created_by": token.created_by,
            "makers": sorted(token.makers),
            "claimed_at": None if token.claimed_at is None else token.claimed_at.isoformat(),
        },
    }


def caller_from(stored: Mapping[str, Any]) -> Caller:
    """Return what `stored_caller` was made of."""
    token = stored["token"]
    return Caller(
        UUID(stored["principal_id"]),
        PrincipalKind(stored["kind"]),
        stored["name"],
        frozenset(map(Role, stored["roles"])),
        frozenset(map(Permission, stored["permissions"])),
        token_id=None if stored["token_id"] is None else UUID(stored["token_id"]),
        agent_id=None if stored["agent_id"] is None else UUID(stored["agent_id"]),
        token=None
        if token is None
        else Provenance(
            token["created_by"],
            frozenset(token["makers"]),
            None if token["claimed_at"] is None else datetime.fromisoformat(token["claimed_at"]),
        ),
    )
