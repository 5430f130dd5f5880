"""What the suite did: every call of its clients, and every fault that it made.

Times are seconds of the wall clock, which everything on one machine shares: the scripts, PostgreSQL and this process.
"""

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["ok", "fail", "unknown", "pending"]


@dataclass(slots=True)
class Submitted:
    """One piece of work that a client wanted done. `work` names it, whatever ids it gets."""

    work: str
    task_id: str
    body: dict[str, Any]
    kind: str

    @property
    def ordering_key(self) -> str | None:
        return self.body.get("ordering_key")

    @property
    def concurrency(self) -> tuple[str, int] | None:
        """The key and how many tasks with it may run at a time."""
        key = self.body.get("concurrency_key")
        return None if key is None else (key, self.body["concurrency_limit"])

    @property
    def max_starts(self) -> int:
        return int(self.body.get("max_attempts") or (3 if self.body["idempotent"] else 1))


@dataclass(slots=True)
class Call:
    """One call of a client. `pending` until it has ended; `unknown`: it may or may not have had its effect."""

    kind: Literal["dispatch", "batch", "cancel", "repeat"]
    orchestrator: str
    task_ids: list[str]
    invoked: float
    outcome: Outcome = "pending"
    ended: float | None = None
    detail: str = ""
    accepted: list[str] = field(default_factory=list)
    """The tasks that the answer says exist (or, for a cancel, are cancelled)."""

    def end(self, outcome: Outcome, detail: str = "", *, accepted: list[str] | None = None) -> None:
        self.outcome, self.detail, self.ended = outcome, detail, time.time()
        self.accepted = accepted or []


@dataclass(slots=True)
class FaultRecord:
    """A fault as it was made. `service`: when everything answered again; None when that was not seen in time. What came
    back last was `missing` for longest.
    """

    kind: str
    target: str
    started: float
    healed: float | None = None
    service: float | None = None
    missing: str = ""
    failure: str = ""


@dataclass(slots=True)
class ProcessEnd:
    """A process that ended; `wanted` when the suite killed or stopped it."""

    name: str
    at: float
    exit_code: int | None
    wanted: bool


@dataclass(slots=True)
class History:
    """Everything that happened on the outside."""

    submitted: dict[str, Submitted] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    faults: list[FaultRecord] = field(default_factory=list)
    ends: list[ProcessEnd] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    poison: list[str] = field(default_factory=list)
    """The ids of messages that nobody can read and that the broker has."""

    def invoke(self, kind: Literal["dispatch", "batch", "cancel", "repeat"], where: str, *task_ids: str) -> Call:
        call = Call(kind, where, list(task_ids), time.time())
        self.calls.append(call)
        return call

    @property
    def answered(self) -> set[str]:
        """The tasks of which some dispatch was answered with success."""
        return {task_id for call in self.calls if call.kind != "cancel" for task_id in call.accepted}

    @property
    def cancelled(self) -> dict[str, float]:
        """When each cancel that succeeded was answered."""
        return {call.accepted[0]: call.ended or 0.0 for call in self.calls if call.kind == "cancel" and call.accepted}

    def about(self, task_id: str) -> list[dict[str, Any]]:
        return [asdict(call) for call in self.calls if task_id in call.task_ids or task_id in call.accepted]
