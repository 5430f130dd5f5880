"""What an event of a run is worth."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.events.model import Event, Kind
from orchestrator.metrics.names import StepFacts, of_run, of_step
from orchestrator.metrics.statsd import Counted, Timed

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BEGAN = NOW - timedelta(seconds=90)


def event(kind: Kind, **data: Any) -> Event:
    return Event(1, NOW, kind, uuid4(), uuid4(), None, None, 1, "test", data)


def status(value: str, **data: Any) -> Event:
    return event(Kind.RUN_STATUS, run_id=str(uuid4()), status=value, **data)


def step(value: str) -> Event:
    return event(Kind.TASK_STEP, position=2, name="build", status=value, message="")


@pytest.mark.parametrize("kind", [Kind.RUN_STARTED, Kind.RUN_RETRIED, Kind.APPROVAL_APPROVED])
def test_a_run_is_queued_when_it_is_asked_for_approved_and_tried_again(kind: Kind) -> None:
    assert of_run(event(kind), "web") == [Counted("runs.queued"), Counted("runs.queued.service.web")]
    assert of_run(event(kind), None) == [Counted("runs.queued")]


@pytest.mark.parametrize("value", ["running", "awaiting_approval"])
def test_the_status_of_a_run_is_counted(value: str) -> None:
    assert of_run(status(value), "web") == [Counted(f"runs.status.{value}")]


@pytest.mark.parametrize("value", ["succeeded", "failed", "rolled_back", "cancelled"])
def test_the_end_of_a_run_says_how_long_it_took(value: str) -> None:
    assert of_run(status(value, duration_ms=90_500), "web") == [
        Counted(f"runs.status.{value}"),
        Timed(f"runs.duration.{value}", timedelta(seconds=90.5)),
    ]


def test_a_run_that_waits_for_an_agent_again_is_worth_nothing() -> None:
    assert list(of_run(status("pending"), "web")) == []


def test_the_beginning_of_a_step_is_counted() -> None:
    assert of_step(step("in_progress"), StepFacts(BEGAN, None, began_before=False)) == [Counted("steps.build.started")]


def test_a_second_report_of_a_step_that_runs_is_worth_nothing() -> None:
    assert of_step(step("in_progress"), StepFacts(BEGAN, None, began_before=True)) == []


@pytest.mark.parametrize("value", ["succeeded", "failed"])
def test_the_end_of_a_step_says_how_long_it_took_by_the_clock_of_its_host(value: str) -> None:
    facts = StepFacts(BEGAN, BEGAN + timedelta(seconds=7), began_before=True)

    assert of_step(step(value), facts) == [
        Counted(f"steps.build.{value}"),
        Timed("steps.build.duration", timedelta(seconds=7)),
    ]


def test_a_step_of_which_only_the_end_was_heard_has_begun_as_well() -> None:
    facts = StepFacts(None, None, began_before=False)

    assert [metric.name for metric in of_step(step("failed"), facts)] == [
        "steps.build.started",
        "steps.build.failed",
        "steps.build.duration",
    ]


def test_a_step_that_is_skipped_is_worth_nothing() -> None:
    assert list(of_step(step("skipped"), StepFacts(None, None, began_before=False))) == []
