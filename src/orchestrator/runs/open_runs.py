"""The runs that this process knows to be open, and which of them are to be looked at now.

A memory, which decides nothing: what it misses, the sweep finds in the ledger.
"""

import asyncio
from collections.abc import Iterable, Sequence
from uuid import UUID

from common.loop import Wake
from common.messages import LAST_STEP, StepStatus
from common.plans.status import RunStatus
from orchestrator.events.model import Event, Kind
from orchestrator.runs.model import Pending

# After these the next step of a run may begin, or the run stands elsewhere. The claim of a task matters only to a run
# that does not run yet.
NEWS = frozenset(
    (
        Kind.TASK_COMPLETED,
        Kind.TASK_FAILED,
        Kind.TASK_CANCELLED,
        Kind.TASK_STOPPED,
        Kind.APPROVAL_REQUESTED,
        Kind.APPROVAL_APPROVED,
        Kind.RUN_RETRIED,
        Kind.RUN_CANCELLED,
        Kind.RUN_ABANDONED,
    )
)


class _Known:
    """An open run. `fingerprint` is how it looked when the sweep had it looked at last."""

    def __init__(self, trace_id: UUID, at: float) -> None:
        self.trace_id = trace_id
        self.at = at
        self.status: RunStatus | None = None
        self.fingerprint: str | None = None


class OpenRuns:
    """Is shown events while there is any open run; `bell` rings when one is to be looked at."""

    def __init__(self) -> None:
        self.bell = Wake()
        self._known: dict[UUID, _Known] = {}
        self._of_trace: dict[UUID, set[UUID]] = {}
        self._due: dict[UUID, None] = {}

    @property
    def listens(self) -> bool:
        """Whether it is to be shown events."""
        return bool(self._known)

    def __contains__(self, run_id: UUID) -> bool:
        return run_id in self._known

    def heard(self, events: Iterable[Event]) -> None:
        """Have the runs looked at that these events may concern."""
        for event in events:
            for run_id in tuple(self._of_trace.get(event.trace_id, ())) if event.trace_id is not None else ():
                self._hear(run_id, event)

    def _hear(self, run_id: UUID, event: Event) -> None:
        match event.kind:
            case Kind.TASK_CLAIMED:
                is_news = self._known[run_id].status is not RunStatus.RUNNING
            case Kind.TASK_STEP:
                is_news = event.data["name"] == LAST_STEP and StepStatus(event.data["status"]).is_final
            case Kind.RUN_STATUS if event.data["run_id"] == str(run_id):
                # What another orchestrator did to it, or this one a moment ago.
                status = RunStatus(event.data["status"])
                is_news = False
                if status.is_final:
                    self.forget(run_id)
                else:
                    self._known[run_id].status = status
            case kind:
                is_news = kind in NEWS
        if is_news:
            self.due(run_id)

    def add(self, run_id: UUID, trace_id: UUID) -> None:
        """Hear of a run from now on."""
        if run_id not in self._known:
            self._known[run_id] = _Known(trace_id, asyncio.get_running_loop().time())
            self._of_trace.setdefault(trace_id, set()).add(run_id)

    def stands(self, run_id: UUID, status: RunStatus) -> None:
        """Note where a run stands; one that has ended is forgotten."""
        if status.is_final:
            self.forget(run_id)
        elif run_id in self._known:
            self._known[run_id].status = status

    def forget(self, run_id: UUID) -> None:
        known = self._known.pop(run_id, None)
        self._due.pop(run_id, None)
        if known is not None:
            runs = self._of_trace[known.trace_id]
            runs.discard(run_id)
            if not runs:
                del self._of_trace[known.trace_id]

    def due(self, run_id: UUID) -> None:
        """Have a run looked at soon."""
        self._due[run_id] = None
        self.bell.ring()

    def take(self, *, limit: int) -> list[UUID]:
        """Return the runs whose turn it is."""
        turn = list(self._due)[:limit]
        for run_id in turn:
            del self._due[run_id]
        return turn

    def swept(self, found: Sequence[Pending]) -> None:
        """Have those runs looked at that look otherwise than when the last sweep found them."""
        for one in found:
            self.add(one.run_id, one.trace_id)
            known = self._known[one.run_id]
            if known.fingerprint != one.fingerprint:
                known.fingerprint = one.fingerprint
                self.due(one.run_id)

    def looks_unlike(self, run_id: UUID) -> None:
        """Have the next sweep take a run for changed: to look at it has failed."""
        if run_id in self._known:
            self._known[run_id].fingerprint = None

    def keep(self, seen: set[UUID], *, since: float) -> None:
        """Forget the runs known since before a sweep began that it did not see: they have ended."""
        for run_id, known in list(self._known.items()):
            if run_id not in seen and known.at < since:
                self.forget(run_id)
