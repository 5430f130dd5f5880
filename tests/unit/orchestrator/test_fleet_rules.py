"""Who may have work: pauses, drains, and the circuit breaker, as pure decisions."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from common.errors import ErrorCode
from common.messages import AgentStatus
from common.orders import Drain, Pause
from orchestrator.registry.model import MayWork, Standing
from orchestrator.registry.rules import (
    OF_THE_HOST,
    BreakerPolicy,
    Count,
    Outcome,
    agent_outcome,
    count_outcomes,
    may_work,
    standing_order,
)

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SOON, PAST = NOW + timedelta(seconds=30), NOW - timedelta(seconds=30)
POLICY = BreakerPolicy(failures=3, pause=timedelta(seconds=60))
FAILED, WELL, LOST, UNTRIED = (
    Outcome(infrastructure=True),
    Outcome(infrastructure=False),
    Outcome(infrastructure=True, lost=True),
    Outcome(infrastructure=False, untried=True),
)


def make_standing(**values: Any) -> Standing:
    given: dict[str, Any] = {"agent_id": uuid4(), "status": AgentStatus.ONLINE, "started_at": PAST}
    return Standing(**{**given, **values})


@pytest.mark.parametrize("standing", [make_standing(), make_standing(paused_until=PAST)])
def test_an_agent_that_nobody_holds_back_may_have_work(standing: Standing) -> None:
    assert may_work(standing, now=NOW) is MayWork.FREE
    assert standing_order(standing, now=NOW) is None


def test_an_agent_that_has_not_registered_gets_no_work() -> None:
    assert may_work(None, now=NOW) is MayWork.UNREGISTERED


def test_a_paused_agent_is_told_until_when_and_why() -> None:
    standing = make_standing(paused_until=SOON, paused_by="ann", pause_note="disk")

    assert may_work(standing, now=NOW) is MayWork.PAUSED
    assert standing_order(standing, now=NOW) == Pause(until=SOON, note="disk")


def test_a_draining_agent_is_told_to_drain_whatever_else_holds_it() -> None:
    standing = make_standing(draining=True, drain_note="new kernel", paused_until=SOON)

    assert may_work(standing, now=NOW) is MayWork.DRAINING
    assert standing_order(standing, now=NOW) == Drain(started_at=standing.started_at, note="new kernel")


def test_a_tripped_agent_is_paused_until_the_later_end() -> None:
    later = SOON + timedelta(minutes=5)

    tripped = make_standing(tripped_until=SOON, failures_in_row=5, trip_reason="disk is full")
    both = make_standing(tripped_until=SOON, paused_until=later, paused_by="ann")

    assert [may_work(one, now=NOW) for one in (tripped, both)] == [MayWork.TRIPPED, MayWork.PAUSED]
    order = standing_order(tripped, now=NOW)
    assert order == Pause(until=SOON, note="too many failures in a row, the last: disk is full")
    assert standing_order(both, now=NOW) == Pause(until=later)


def test_an_agent_whose_trip_is_over_may_try_one_task() -> None:
    standing = make_standing(tripped_until=PAST, failures_in_row=5)

    assert may_work(standing, now=NOW) is MayWork.TRIAL
    assert standing_order(standing, now=NOW) is None


def test_failures_in_a_row_trip_the_breaker_and_not_before() -> None:
    standing = make_standing()

    assert count_outcomes(standing, [FAILED] * 2, now=NOW, policy=POLICY) == Count(2, None, tripped=False)
    assert count_outcomes(standing, [FAILED] * 3, now=NOW, policy=POLICY) == Count(3, NOW + POLICY.pause, tripped=True)


def test_a_result_that_is_the_works_own_begins_the_count_anew() -> None:
    standing = make_standing(failures_in_row=2)

    assert count_outcomes(standing, [WELL, FAILED], now=NOW, policy=POLICY) == Count(1, None, tripped=False)


def test_a_trial_that_fails_trips_again_at_once_and_one_that_succeeds_ends_it() -> None:
    half_open = make_standing(failures_in_row=3, tripped_until=PAST)

    assert count_outcomes(half_open, [FAILED], now=NOW, policy=POLICY) == Count(4, NOW + POLICY.pause, tripped=True)
    assert count_outcomes(half_open, [WELL], now=NOW, policy=POLICY) == Count(0, None, tripped=False)


def test_what_a_leaving_agent_could_not_finish_is_no_failure_of_it_but_a_lost_lease_is() -> None:
    leaving = make_standing(status=AgentStatus.DRAINING, failures_in_row=2)

    assert count_outcomes(leaving, [FAILED], now=NOW, policy=POLICY).failures == 2
    assert count_outcomes(leaving, [LOST], now=NOW, policy=POLICY).tripped


@pytest.mark.parametrize(
    ("outcome", "error_code", "counts", "expected"),
    [
        ("completed", None, True, WELL),
        ("failed", None, True, WELL),
        ("failed", 5001, True, WELL),
        ("failed", 5002, True, FAILED),
        ("failed", 5005, True, FAILED),
        ("failed", 5005, False, FAILED),
        ("failed", 3001, True, WELL),
        ("lost", 5002, True, LOST),
        ("cancelled", None, True, None),
    ],
)
def test_only_what_is_the_agents_or_its_hosts_fault_counts(
    outcome: str, error_code: int | None, counts: bool, expected: Outcome | None
) -> None:
    assert agent_outcome(outcome, error_code, counts=counts) == expected


@pytest.mark.parametrize("code", [ErrorCode.RESOURCE_LIMIT, ErrorCode.AUTHENTICATION_FAILED])
def test_a_refusal_because_of_the_host_counts(code: ErrorCode) -> None:
    assert agent_outcome("failed", code, counts=False) == FAILED


@pytest.mark.parametrize("code", [None, *sorted(set(ErrorCode) - OF_THE_HOST)])
def test_a_refusal_because_of_the_work_says_nothing_of_the_host(code: ErrorCode | None) -> None:
    standing = make_standing(failures_in_row=2)

    outcome = agent_outcome("failed", code, counts=False)

    assert outcome == UNTRIED
    assert count_outcomes(standing, [UNTRIED] * 9, now=NOW, policy=POLICY) == Count(2, None, tripped=False)


def test_after_a_trial_that_was_refused_because_of_the_work_another_task_may_be_tried() -> None:
    on_trial = make_standing(failures_in_row=3, tripped_until=SOON)

    assert count_outcomes(on_trial, [UNTRIED], now=NOW, policy=POLICY) == Count(3, NOW, tripped=False)


@pytest.mark.parametrize(
    ("reason", "note"),
    [(None, "too many failures in a row"), ("no disk", "too many failures in a row, the last: no disk")],
)
def test_a_tripped_agent_is_told_its_last_failure_where_one_is_known(reason: str | None, note: str) -> None:
    standing = make_standing(tripped_until=SOON, failures_in_row=5, trip_reason=reason)

    assert standing_order(standing, now=NOW) == Pause(until=SOON, note=note)
