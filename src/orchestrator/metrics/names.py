"""Which metrics an event is worth: pure decisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from common.messages import StepStatus
from common.plans.status import FINAL, RunStatus
from orchestrator.events.model import Event, Kind
from orchestrator.metrics.statsd import Counted, Metric, Timed, segment

# Events that name a run in their data, and all that are worth a metric; the others are not even looked at.
ABOUT_RUNS = frozenset((Kind.RUN_STARTED, Kind.RUN_RETRIED, Kind.RUN_STATUS))
WORTH = ABOUT_RUNS | {Kind.TASK_STEP, Kind.APPROVAL_APPROVED}
# A run is queued when it is asked for, when people let it go on, and when it is tried again.
QUEUES = frozenset((Kind.RUN_STARTED, Kind.RUN_RETRIED, Kind.APPROVAL_APPROVED))
COUNTED = frozenset((*FINAL, RunStatus.RUNNING, RunStatus.AWAITING_APPROVAL))


@dataclass(frozen=True, slots=True)
class StepFacts:
    """What an event about an inner step does not say: its times, and whether its beginning has an event of its own."""

    started_at: datetime | None
    finished_at: datetime | None
    began_before: bool


def of_run(event: Event, service: str | None) -> Sequence[Metric]:
    """Return what an event about a run, or about the approval of one of its tasks, is worth.

    `service` is the one that the run repairs, if it does.
    """
    if event.kind in QUEUES:
        queued: list[Metric] = [Counted("runs.queued")]
        return queued if service is None else [*queued, Counted(f"runs.queued.service.{segment(service)}")]
    status = RunStatus(event.data["status"])
    if status not in COUNTED:
        return ()
    counted = Counted(f"runs.status.{status}")
    if not status.is_final:
        return [counted]
    return [counted, Timed(f"runs.duration.{status}", timedelta(milliseconds=event.data["duration_ms"]))]


def of_step(event: Event, step: StepFacts) -> Sequence[Metric]:
    """Return what an event about an inner step of a task is worth."""
    name, status = f"steps.{segment(str(event.data['name']))}", StepStatus(event.data["status"])
    if status is StepStatus.SKIPPED:
        return ()
    begun: list[Metric] = [] if step.began_before else [Counted(f"{name}.started")]
    if status is StepStatus.IN_PROGRESS:
        return begun
    took = timedelta(0)
    if step.started_at is not None and step.finished_at is not None:
        took = step.finished_at - step.started_at
    return [*begun, Counted(f"{name}.{status}"), Timed(f"{name}.duration", took)]
