"""Who gets a task, whose result counts, and what becomes of a task whose agent is lost: pure decisions."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from common.errors import ErrorCode
from common.lifecycle import Change, Status, next_status
from common.messages import ResultStatus, WorkResult
from common.retry import GiveUp, Retry, RetryPolicy
from orchestrator.tasks.model import Task

# So many attempts the ledger can count. A task that is handed back untouched gets there only after decades.
MOST_ATTEMPTS = 32_000
# It waits at least this part of its age, so that its attempts grow with the logarithm of that.
PART_OF_AGE = 100
# An agent that refused a task gets it again after this; meanwhile it goes to others.
REFUSAL_MEMORY = timedelta(seconds=60)
# How long a task rests at least for which there are only agents that refused it.
SHORTEST_REST = timedelta(seconds=1)
AGENT_LOST = "agent lost: it stopped renewing its lease"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of an attempt that somebody reports on.

    `by_shut_out`: its agent's identity was disabled. `by_failing`: what its agent did last, failed. `refused_before`:
    its agent had refused the task in an earlier attempt.
    """

    task_id: UUID
    number: int
    agent_id: UUID
    outcome: str | None
    output_bytes: dict[str, Any] | None
    by_shut_out: bool = False
    by_failing: bool = False
    refused_before: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """The result counts and ends the task."""

    status: Status


@dataclass(frozen=True, slots=True)
class Requeue:
    """Another attempt follows, not before `at`. An attempt that was handed back untouched does not count."""

    at: datetime
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Stopped:
    """The agent reports that it stopped what was cancelled: noted, and nothing changes."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The result counted before."""


@dataclass(frozen=True, slots=True)
class Stale:
    """The result does not count: the lease that it belongs to is over."""

    reason: str


Verdict = Finish | Requeue | Stopped | Duplicate | Stale


def judge_result(
    task: Task | None,
    attempt: Attempt | None,
    result: WorkResult,
    *,
    now: datetime,
    policy: RetryPolicy,
    chance: float = 0.5,
) -> Verdict:
    """Say what a result changes."""
    if task is None or attempt is None:
        return Stale("there is no such attempt")
    if attempt.agent_id != result.agent_id:
        return Stale("this attempt is another agent's")
    if attempt.by_shut_out:
        return Stale("the agent's identity was disabled")
    if task.status is Status.RUNNING and task.attempt == result.attempt:
        return _judge_live(task, attempt, result, now=now, policy=policy, chance=chance)
    if attempt.outcome == "cancelled" and result.status is ResultStatus.CANCELLED and attempt.output_bytes is None:
        return Stopped()
    if attempt.outcome == result.status:
        return Duplicate()
    return Stale(f"the attempt has ended: {attempt.outcome}")


def judge_completed(result: WorkResult) -> Finish | None:
    """Say what a result of a live lease changes if it says that all is done; None when the task decides, too."""
    if result.status is not ResultStatus.COMPLETED:
        return None
    return Finish(next_status(Status.RUNNING, Change.SUCCEED))


def is_refusal(result: WorkResult) -> bool:
    """Say whether an agent would not start the work; a grant that came too late for it says nothing of the agent."""
    is_untouched = result.status is ResultStatus.FAILED and not result.started
    return is_untouched and result.error_code not in (None, ErrorCode.AGENT_UNAVAILABLE)


def rest_after(refused_ago: timedelta) -> timedelta:
    """Return how long a task rests for which there was only an agent that refused it so long ago.

    Each time twice as long, so that what all refuse costs little, and another agent gets it soon all the same.
    """
    return max(SHORTEST_REST, timedelta(seconds=round(refused_ago.total_seconds())))


def _judge_live(
    task: Task, attempt: Attempt, result: WorkResult, *, now: datetime, policy: RetryPolicy, chance: float
) -> Finish | Requeue:
    match result.status:
        case ResultStatus.COMPLETED:
            return Finish(next_status(task.status, Change.SUCCEED))
        case ResultStatus.CANCELLED:
            return Finish(next_status(task.status, Change.CANCEL))
        case ResultStatus.FAILED if not result.started and task.attempt < MOST_ATTEMPTS:
            next_status(task.status, Change.RETRY)
            is_news = not task.unstarted or (is_refusal(result) and not attempt.refused_before)
            return Requeue(now if is_news else now + _patience(task, now=now, policy=policy), counts=False)
        case ResultStatus.FAILED:
            decision = policy.decide(
                retryable=result.retryable, attempt=task.starts, max_attempts=task.max_attempts, now=now, chance=chance
            )
            match decision:
                case Retry(at=at):
                    next_status(task.status, Change.RETRY)
                    return Requeue(at)
                case GiveUp():
                    return Finish(next_status(task.status, Change.FAIL))


def _patience(task: Task, *, now: datetime, policy: RetryPolicy) -> timedelta:
    """Return how long a task waits that is handed back again, by agents that were asked before."""
    return max(policy.wait(task.unstarted), (now - task.created_at) / PART_OF_AGE)


def judge_lost(task: Task, *, now: datetime, policy: RetryPolicy, chance: float = 0.5) -> Finish | Requeue:
    """Say what becomes of a task whose lease ran out."""
    decision = policy.decide(
        retryable=True, attempt=task.starts, max_attempts=task.max_attempts, now=now, chance=chance
    )
    match decision:
        case Retry(at=at):
            next_status(task.status, Change.LOSE_LEASE)
            return Requeue(at)
        case GiveUp():
            return Finish(next_status(task.status, Change.FAIL))


LOST_CODE = ErrorCode.AGENT_UNAVAILABLE
