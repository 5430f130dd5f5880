"""Runs as the REST API answers them, with what a reader may see of their plans."""

from collections.abc import Iterable, Iterator
from typing import Any

from common.canonical import canonical_json
from common.rest import runs as rest
from orchestrator.database.pages import MOST_PAGE_BYTES
from orchestrator.runs.model import RunView, StepView, Summary, service_of
from orchestrator.runs.queries import stored_plan
from orchestrator.steps.model import TaskStep
from orchestrator.tasks.answers import without_secrets


def summary_of(run: Summary) -> rest.RunSummary:
    """Return a run without its plan and its steps."""
    return rest.RunSummary.model_validate(run)


def run_of(view: RunView) -> rest.Run:
    """Return a run with its plan and its steps, and their results as long as all together are not too large."""
    run = view.run
    return rest.Run(
        run_id=run.run_id,
        request_id=run.request_id,
        trace_id=run.trace_id,
        name=run.name,
        status=run.status,
        key=run.key,
        service=service_of(run.about),
        requested_by=run.requested_by.name,
        created_at=run.created_at,
        queued_at=run.queued_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        error_message=run.error_message or run.plan_problem,
        cancelled_by=run.cancelled_by,
        plan=without_secrets(stored_plan(run.plan)),
        inputs=without_secrets(dict(run.inputs)),
        about=without_secrets(dict(run.about)),
        steps=list(_steps(view.steps)),
        earlier=list(_steps(view.earlier)),
        waits_for=view.waits_for,
    )


def _steps(views: Iterable[StepView], *, most_bytes: int = MOST_PAGE_BYTES) -> Iterator[rest.RunStep]:
    size = 0
    for view in views:
        result = None if view.link is None else view.link.result
        size += 0 if result is None else len(canonical_json(result))
        left_out = result is not None and size > most_bytes
        yield _step(view, None if left_out else result, left_out=left_out)


def _step(view: StepView, result: Any, *, left_out: bool) -> rest.RunStep:
    link = view.link
    if link is None:
        return rest.RunStep(
            step=view.step,
            kind=view.kind,
            number=0,
            status=view.status,
            work_type=view.work_type,
            error_message=view.problem or None,
        )
    return rest.RunStep(
        step=view.step,
        kind=view.kind,
        number=link.number,
        status=view.status,
        work_type=view.work_type,
        task_id=None if link.status is None else link.task_id,
        approval_id=link.approval_id,
        agent_id=link.agent_id,
        agent_name=link.agent_name,
        attempt=link.attempt,
        progress=link.progress,
        exit_code=link.exit_code,
        error_message=view.problem or None,
        error_code=link.error_code,
        result=result,
        result_left_out=left_out,
        started_at=link.started_at,
        finished_at=link.finished_at,
        superseded=link.superseded,
        inner=[_inner(step) for step in view.inner],
    )


def _inner(step: TaskStep) -> rest.InnerStep:
    return rest.InnerStep(
        position=step.position,
        name=step.name,
        status=step.status,
        started_at=step.started_at,
        finished_at=step.finished_at,
        message=step.message,
    )
