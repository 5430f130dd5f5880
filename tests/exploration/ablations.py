"""Rules with one safeguard taken out, to see that the exploration notices."""

from dataclasses import replace
from datetime import datetime

from common.lifecycle import Change, Status, next_status
from common.messages import WorkResult
from common.retry import RetryPolicy
from orchestrator.leases import rules
from orchestrator.tasks.model import Task
from tests.exploration.rules import LostVerdict, ResultVerdict, Rules


def _result_of_any_attempt(
    task: Task | None, attempt: rules.Attempt | None, result: WorkResult, *, now: datetime, policy: RetryPolicy
) -> ResultVerdict:
    if task is not None and attempt is not None and task.agent_id is not None:
        result = result.model_copy(update={"attempt": task.attempt, "agent_id": task.agent_id})
        attempt = replace(attempt, number=task.attempt, agent_id=task.agent_id)
    return rules.judge_result(task, attempt, result, now=now, policy=policy)


def _result_counts_again(
    task: Task | None, attempt: rules.Attempt | None, result: WorkResult, *, now: datetime, policy: RetryPolicy
) -> ResultVerdict:
    verdict = rules.judge_result(task, attempt, result, now=now, policy=policy)
    return rules.Finish(Status(result.status)) if isinstance(verdict, rules.Duplicate) else verdict


def _final_can_be_left(
    task: Task | None, attempt: rules.Attempt | None, result: WorkResult, *, now: datetime, policy: RetryPolicy
) -> ResultVerdict:
    if task is not None and task.status.is_final:
        task = replace(task, status=Status.RUNNING, attempt=result.attempt)
    return rules.judge_result(task, attempt, result, now=now, policy=policy)


def _final_can_be_cancelled(status: Status, change: Change) -> Status:
    return Status.CANCELLED if change is Change.CANCEL else next_status(status, change)


def _lost_is_always_repeated(task: Task, *, now: datetime, policy: RetryPolicy) -> LostVerdict:
    return rules.judge_lost(replace(task, max_attempts=20), now=now, policy=policy)


ABLATED = {
    "a result needs the attempt of the live lease": Rules(judge_result=_result_of_any_attempt),
    "a result counts once": Rules(judge_result=_result_counts_again),
    "a result leaves a final task alone": Rules(judge_result=_final_can_be_left),
    "final is final": Rules(next_status=_final_can_be_cancelled),
    "attempts are limited": Rules(judge_lost=_lost_is_always_repeated),
}
