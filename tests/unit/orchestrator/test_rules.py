"""Who gets a task, and whose result counts: the rules, without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from common.errors import ErrorCode
from common.lifecycle import Status
from common.messages import ResultStatus
from common.retry import RetryPolicy
from orchestrator.leases.rules import (
    Attempt,
    Duplicate,
    Finish,
    Requeue,
    Stale,
    Stopped,
    judge_lost,
    judge_result,
)
from orchestrator.tasks.model import Task
from tests.factories import make_result
from tests.test_orchestrator_api import make_task

NOW = datetime(2026, 11, 22, tzinfo=UTC)
AGENT = uuid4()
CLAIM = uuid4()
POLICY = RetryPolicy()


def running(**values: Any) -> Task:
    held = {"status": Status.RUNNING, "agent_id": AGENT, "claim_id": CLAIM, "attempt": 1}
    return make_task(**{**held, **values})


def attempt(outcome: str | None = None, **values: Any) -> Attempt:
    given: dict[str, Any] = {
        "task_id": uuid4(),
        "number": 1,
        "agent_id": AGENT,
        "outcome": outcome,
        "output_bytes": None,
    }
    return Attempt(**{**given, **values})


def result(**values: Any) -> Any:
    return make_result(uuid4(), AGENT, **values)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (ResultStatus.COMPLETED, Status.COMPLETED),
        (ResultStatus.FAILED, Status.FAILED),
        (ResultStatus.CANCELLED, Status.CANCELLED),
    ],
)
def test_the_result_of_the_live_lease_ends_the_task(status: ResultStatus, expected: Status) -> None:
    assert judge_result(running(), attempt(), result(status=status), now=NOW, policy=POLICY) == Finish(expected)


def test_a_retryable_failure_waits_for_another_attempt_while_there_is_one() -> None:
    failed = result(status=ResultStatus.FAILED, retryable=True)

    verdict = judge_result(running(max_attempts=2), attempt(), failed, now=NOW, policy=POLICY)
    last = judge_result(running(max_attempts=1), attempt(), failed, now=NOW, policy=POLICY)

    assert isinstance(verdict, Requeue)
    assert verdict.at > NOW
    assert last == Finish(Status.FAILED)


def test_a_task_that_was_handed_back_untouched_waits_again_at_once_and_its_attempt_does_not_count() -> None:
    untouched = result(status=ResultStatus.FAILED, retryable=True, started=False)

    verdict = judge_result(running(max_attempts=1), attempt(), untouched, now=NOW, policy=POLICY)

    assert verdict == Requeue(NOW, counts=False)


@pytest.mark.parametrize(
    ("age", "waits"),
    [(timedelta(0), POLICY.cap), (timedelta(days=1), timedelta(days=1) / 100), (timedelta(days=365), timedelta(3.65))],
    ids=["new", "a day old", "a year old"],
)
def test_work_that_agents_refuse_again_waits_ever_longer_and_never_fails(age: timedelta, waits: timedelta) -> None:
    refusal = result(status=ResultStatus.FAILED, started=False, error_code=ErrorCode.POLICY_REFUSED, attempt=5001)
    task = running(unstarted=5000, attempt=5001, max_attempts=1, created_at=NOW - age)

    first = judge_result(task, attempt(), refusal, now=NOW, policy=POLICY)
    again = judge_result(task, attempt(refused_before=True), refusal, now=NOW, policy=POLICY)

    assert first == Requeue(NOW, counts=False), "others may not have been asked yet"
    assert again == Requeue(NOW + waits, counts=False)


def test_no_attempt_is_made_that_the_ledger_cannot_count() -> None:
    untouched = result(status=ResultStatus.FAILED, started=False, error_code=ErrorCode.POLICY_REFUSED, attempt=32_000)
    task = running(unstarted=31_999, attempt=32_000, max_attempts=1)

    assert judge_result(task, attempt(), untouched, now=NOW, policy=POLICY) == Finish(Status.FAILED)


@pytest.mark.parametrize(
    ("task", "known", "sent", "verdict"),
    [
        (None, None, {}, Stale),
        (running(), None, {}, Stale),
        (running(), attempt(agent_id=uuid4()), {}, Stale),
        (running(attempt=2), attempt("lost"), {}, Stale),
        (make_task(status=Status.COMPLETED), attempt("completed"), {}, Duplicate),
        (make_task(status=Status.COMPLETED), attempt("completed"), {"status": ResultStatus.FAILED}, Stale),
        (make_task(status=Status.CANCELLED), attempt("cancelled"), {}, Stale),
        (
            make_task(status=Status.CANCELLED),
            attempt("cancelled"),
            {"status": ResultStatus.CANCELLED},
            Stopped,
        ),
        (
            make_task(status=Status.CANCELLED),
            attempt("cancelled", output_bytes={}),
            {"status": ResultStatus.CANCELLED},
            Duplicate,
        ),
    ],
)
def test_any_other_result_changes_nothing(
    task: Task | None, known: Attempt | None, sent: dict[str, Any], verdict: type
) -> None:
    assert isinstance(judge_result(task, known, result(**sent), now=NOW, policy=POLICY), verdict)


def test_a_lost_task_waits_again_or_fails() -> None:
    assert isinstance(judge_lost(running(max_attempts=3), now=NOW, policy=POLICY), Requeue)
    assert judge_lost(running(max_attempts=1), now=NOW, policy=POLICY) == Finish(Status.FAILED)


def test_attempts_that_were_handed_back_untouched_are_not_counted_as_starts() -> None:
    failed = result(status=ResultStatus.FAILED, retryable=True, attempt=3)
    once, twice = (running(attempt=attempts, unstarted=2, max_attempts=2) for attempts in (3, 4))

    assert isinstance(judge_result(once, attempt(), failed, now=NOW, policy=POLICY), Requeue)
    assert isinstance(judge_lost(once, now=NOW, policy=POLICY), Requeue)
    assert judge_lost(twice, now=NOW, policy=POLICY) == Finish(Status.FAILED)


def test_a_task_that_came_too_late_again_waits_for_it_says_nothing_new_of_its_agents() -> None:
    late = result(status=ResultStatus.FAILED, started=False, error_code=ErrorCode.AGENT_UNAVAILABLE, attempt=2)
    task = running(unstarted=1, attempt=2, max_attempts=1, created_at=NOW)

    assert judge_result(task, attempt(), late, now=NOW, policy=POLICY) == Requeue(NOW + POLICY.base, counts=False)


def test_a_result_of_an_agent_that_was_shut_out_is_stale() -> None:
    assert isinstance(judge_result(running(), attempt(by_shut_out=True), result(), now=NOW, policy=POLICY), Stale)
