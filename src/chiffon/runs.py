"""What people do about runs through the client: start a plan, repair a service, approve, cancel, retry, give up."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid4

from chiffon.http import Http
from common.messages import LAST_STEP, StepStatus
from common.plans.model import Plan
from common.plans.status import RunStatus
from common.rest.bodies import body_of
from common.rest.events import FINAL_EVENTS, Event
from common.rest.repairs import Repair, RepairRequest, RepairRetry
from common.rest.runs import (
    InnerStep,
    Run,
    RunApprove,
    RunPage,
    RunReject,
    RunRequest,
    RunRetry,
    RunStep,
    RunStepStatus,
    RunSummary,
    StepKind,
)

# How far a step is: an event that is late takes nothing back.
PROGRESS: Mapping[str, int] = {RunStepStatus.PENDING: 0, RunStepStatus.AWAITING_APPROVAL: 1, RunStepStatus.RUNNING: 2}
OVER = 3
# After these only the ledger knows how the run stands: whether the host of a step has said how it ended, too, what
# became of the run, and which approval it waits for.
DECIDES = FINAL_EVENTS | {"run.status", "run.retried", "task.requeued"}
ASKS_PEOPLE = "approval."


class RunNews(NamedTuple):
    """A run as it stands, and the event that said so; None where the ledger was asked."""

    run: Run
    event: Event | None = None


class Runs:
    """A part of `Client`; see there for what calls raise."""

    _http: Http

    async def start_run(
        self,
        plan: Plan | Mapping[str, Any],
        inputs: Mapping[str, Any] | None = None,
        *,
        run_id: UUID | str | None = None,
        name: str | None = None,
        key: str | None = None,
        request_id: UUID | str | None = None,
        trace_id: UUID | str | None = None,
    ) -> RunSummary:
        """Start a run of a plan.

        The run's id is made here when none is given, so that a lost answer is repeated safely: the same id with the
        same content exists once. Of the runs with one `key` one runs at a time.
        """
        if isinstance(plan, Plan):
            plan = plan.model_dump(mode="json", by_alias=True, exclude_unset=True)
        body = body_of(
            RunRequest,
            run_id=run_id or uuid4(),
            plan=plan,
            inputs=inputs or None,
            name=name,
            key=key,
            request_id=request_id,
            trace_id=trace_id,
        )
        return RunSummary.model_validate(await self._http.post("/api/v1/runs", body, repeatable=True))

    async def repair(
        self,
        service: str,
        instruction: str,
        *,
        diff: str | None = None,
        commands: Sequence[Sequence[str]] | None = None,
        priority: Literal["normal", "high"] = "normal",
    ) -> Repair:
        """Start the repair of a compose service by a unified diff, or by commands that change its files.

        With neither, the diff in the instruction counts, or the commands that the service has.
        """
        patch = {name: value for name, value in (("diff", diff), ("commands", commands)) if value is not None}
        body = body_of(
            RepairRequest, instruction=instruction, target_service=service, priority=priority, patch=patch or None
        )
        return Repair.model_validate(await self._http.post("/orchestrator/runs", body, repeatable=False))

    async def run(self, run_id: UUID | str) -> Run:
        """Return a run with its plan and its steps."""
        return Run.model_validate(await self._http.get(f"/api/v1/runs/{run_id}"))

    async def runs(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        service: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> RunPage:
        """Return a page of runs, newest first; `next_cursor` leads to the next one."""
        query = {"status": status, "name": name, "service": service, "limit": limit, "cursor": cursor}
        return RunPage.model_validate(await self._http.get("/api/v1/runs", query))

    async def cancel_run(self, run_id: UUID | str) -> RunSummary:
        """Cancel a run; what succeeded before is undone, and a repair is rolled back."""
        return await self._order(run_id, "cancel", repeatable=True)

    async def retry_run(self, run_id: UUID | str, *, from_step: str | None = None, reason: str = "") -> RunSummary:
        """Try a run that has ended again, from the steps that failed or from `from_step`."""
        return await self._order(run_id, "retry", body_of(RunRetry, from_step=from_step, reason=reason or None))

    async def retry_repair(self, run_id: UUID | str, *, from_step: str | None = None, reason: str = "") -> Repair:
        """Try a repair that did not succeed again: from the inner step that failed, or from `from_step`."""
        body = body_of(RepairRetry, resume_from_step=from_step, reason=reason or None)
        return Repair.model_validate(
            await self._http.post(f"/orchestrator/runs/{run_id}/retry", body, repeatable=False)
        )

    async def abandon_run(self, run_id: UUID | str) -> RunSummary:
        """End a run whose host will never say how its part ended."""
        return await self._order(run_id, "abandon")

    async def approve_run(
        self, run_id: UUID | str, *, approval_id: UUID | str | None = None, comment: str = ""
    ) -> RunSummary:
        """Say yes to the approval that a run waits for; of several to the one that is named."""
        return await self._order(run_id, "approve", body_of(RunApprove, approval_id=approval_id, comment=comment))

    async def reject_run(self, run_id: UUID | str, *, reason: str, approval_id: UUID | str | None = None) -> RunSummary:
        """Say no to the approval that a run waits for; of several to the one that is named."""
        return await self._order(run_id, "reject", body_of(RunReject, approval_id=approval_id, reason=reason))

    async def _order(self, run_id: UUID | str, what: str, body: Any = None, *, repeatable: bool = False) -> RunSummary:
        answer = await self._http.post(f"/api/v1/runs/{run_id}/{what}", body, repeatable=repeatable)
        return RunSummary.model_validate(answer)


def after_event(run: Run, event: Event) -> Run | None:
    """Return a run as it stands after an event; None when that changes nothing of it."""
    match event.kind:
        case "run.step" if _is_of(run, event):
            return _after_step(run, event)
        case "task.claimed" | "task.progress" | "task.step":
            return _after_task(run, event)
        case _:
            return None


def needs_the_ledger(run: Run, event: Event) -> bool:
    """Say whether an event is about a run and leaves out something that people are shown of it."""
    if not _is_of(run, event) and all(step.task_id != event.task_id for step in run.steps):
        return False
    if event.kind == "task.step":
        return event.data.get("name") == LAST_STEP and event.data.get("status") != StepStatus.IN_PROGRESS
    if event.kind == "run.step":
        # What undoes a step, why one has no task, and how its round before this one ended.
        data = event.data
        return data.get("kind") == StepKind.UNDO or data.get("problem") is not None or data.get("number") != 1
    return event.kind in DECIDES or event.kind.startswith(ASKS_PEOPLE)


def ends_the_run(run: Run, event: Event) -> bool:
    """Say whether an event tells the end of a run, after which nothing of it follows."""
    return _is_of(run, event) and event.kind == "run.status" and RunStatus(str(event.data["status"])).is_final


def progress_of(status: str) -> int:
    """Return how far a step with this status is."""
    return PROGRESS.get(status, OVER)


def _is_of(run: Run, event: Event) -> bool:
    return event.data.get("run_id") == str(run.run_id)


def _after_step(run: Run, event: Event) -> Run | None:
    data = event.data
    name, kind, number = (data.get(field) for field in ("step", "kind", "number"))
    steps = list(run.steps)
    for place, step in enumerate(steps):
        if (step.step, step.kind) != (name, kind):
            continue
        # A row whose task is not in the ledger yet is shown without it.
        is_known = number == step.number and (step.task_id is not None or step.status != RunStepStatus.PENDING)
        if not isinstance(number, int) or number < step.number or is_known:
            return None
        steps[place] = _begun(step, data)
        return run.model_copy(update={"steps": steps})
    return None


def _begun(step: RunStep, data: Mapping[str, Any]) -> RunStep:
    """Return a step that has begun, perhaps once more."""
    known = {name: data[name] for name in ("step", "kind", "number", "status", "task_id") if data.get(name) is not None}
    return RunStep(work_type=step.work_type, **known)


def _after_task(run: Run, event: Event) -> Run | None:
    steps = list(run.steps)
    for place, step in enumerate(steps):
        if event.task_id is None or step.task_id != event.task_id:
            continue
        changed = _with(step, event, {other.agent_id: other.agent_name for other in run.steps if other.agent_name})
        if changed is None:
            return None
        steps[place] = changed
        return run.model_copy(update={"steps": steps})
    return None


def _with(step: RunStep, event: Event, names: Mapping[UUID | None, str]) -> RunStep | None:
    if event.kind == "task.progress":
        return step.model_copy(update={"progress": str(event.data.get("progress", ""))})
    if event.kind == "task.step":
        return _with_inner(step, event)
    if progress_of(step.status) == OVER:
        return None
    known = {"status": RunStepStatus.RUNNING, "attempt": event.attempt or step.attempt, "agent_id": event.agent_id}
    known |= {"agent_name": names.get(event.agent_id), "started_at": event.at, "progress": ""}
    # A new attempt begins with no inner step; the events of the one before are older than this one.
    return step.model_copy(update=known | ({"inner": []} if event.attempt != step.attempt else {}))


def _with_inner(step: RunStep, event: Event) -> RunStep | None:
    data = event.data
    name, status = str(data.get("name")), str(data.get("status"))
    before = next((inner for inner in step.inner if inner.name == name), None)
    if before is not None and before.status != StepStatus.IN_PROGRESS:
        return None
    inner = InnerStep(
        position=int(data.get("position") or 0),
        name=name,
        status=status,
        started_at=event.at if before is None else before.started_at,
        finished_at=None if status == StepStatus.IN_PROGRESS else event.at,
        message=str(data.get("message") or ""),
    )
    others = [other for other in step.inner if other.name != name]
    return step.model_copy(update={"inner": sorted([*others, inner], key=lambda one: one.position)})
