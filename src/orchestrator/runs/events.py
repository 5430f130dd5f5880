"""The events of runs. Those of a step carry its task."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from common.plans.status import RunStatus
from common.protocol import ORCHESTRATOR
from orchestrator.events.model import Kind, NewEvent
from orchestrator.runs.model import Link, NewLink, NewRun, Run


def started(new: NewRun) -> NewEvent:
    return NewEvent(
        Kind.RUN_STARTED,
        actor=new.requested_by.name,
        trace_id=new.trace_id,
        request_id=new.request_id,
        data={
            "run_id": str(new.run_id),
            "name": new.name,
            "status": RunStatus.PENDING,
            "digest": new.digest.hex(),
            "steps": len(new.plan.steps),
            **_service(new.about.get("service")),
        },
    )


def status(run: Run, now: RunStatus, *, was: RunStatus, reason: str | None, took: timedelta) -> NewEvent:
    """Return the event of a run that stands elsewhere from now on; one that ends says why, and how long it took."""
    more: dict[str, Any] = {"from": was, **_service(run.about.get("service"))}
    if now.is_final:
        more |= {"error_message": reason, "duration_ms": round(took.total_seconds() * 1000)}
    return about(Kind.RUN_STATUS, run, ORCHESTRATOR, {"status": now, **more})


def step(run: Run, link: Link | NewLink, *, status: str) -> NewEvent:
    """Return the event of a step that begins, or that cannot."""
    data: dict[str, Any] = {
        "step": link.step,
        "kind": link.kind,
        "number": link.number,
        "task_id": None if link.task_id is None else str(link.task_id),
        "status": status,
    }
    if link.problem is not None:
        data["problem"] = link.problem
    return about(Kind.RUN_STEP, run, ORCHESTRATOR, data, task_id=link.task_id)


def about(
    kind: Kind, run: Run, actor: str, data: Mapping[str, Any] | None = None, *, task_id: UUID | None = None
) -> NewEvent:
    """Return an event about a run that exists."""
    return NewEvent(
        kind,
        actor=actor,
        task_id=task_id,
        trace_id=run.trace_id,
        request_id=run.request_id,
        data={"run_id": str(run.run_id), "name": run.name, **(data or {})},
    )


def _service(service: object) -> dict[str, Any]:
    return {} if service is None else {"service": service}
