"""Every report of an inner step goes out at once, in its order, and without secrets."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from pydantic import ValidationError

from agents.output.steps import Steps, status_of
from common.messages import LONGEST_MESSAGE, StepReport, StepStatus
from common.protocol import WorkStatusEnvelope, decode, encode
from tests.factories import make_step

SECRET, OF_TWO_LINES = "correct-horse-battery", "-----BEGIN\nKEY-----"
BEGAN, ENDED = datetime(2026, 11, 22, 10, 0, tzinfo=UTC), datetime(2026, 11, 22, 10, 1, tzinfo=UTC)


class Orchestrator:
    """Takes reports, and never says that it has them unless a test does."""

    def __init__(self) -> None:
        self.reports: list[StepReport] = []
        self.waiting: list[asyncio.Future[None]] = []

    def hand_in(self, report: StepReport) -> asyncio.Future[None]:
        self.reports.append(report)
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]


def hidden(text: str) -> str:
    return text.replace(SECRET, "[redacted]").replace(OF_TWO_LINES, "[redacted]")


async def test_reports_go_out_one_behind_the_other_without_waiting_for_an_answer() -> None:
    orchestrator = Orchestrator()
    steps = Steps(orchestrator.hand_in, hidden=hidden)

    steps.say(0, "analyze", StepStatus.IN_PROGRESS, started_at=BEGAN)
    steps.say(0, "analyze", StepStatus.SUCCEEDED, "all there", BEGAN, ENDED)
    steps.say(5, "rollback", StepStatus.SKIPPED)

    assert orchestrator.reports == [
        make_step(0, "analyze", started_at=BEGAN),
        make_step(0, "analyze", status=StepStatus.SUCCEEDED, started_at=BEGAN, finished_at=ENDED, message="all there"),
        make_step(5, "rollback", status=StepStatus.SKIPPED),
    ]


async def test_only_an_attempt_that_reported_steps_has_its_result_behind_them() -> None:
    steps = Steps(Orchestrator().hand_in, hidden=hidden)
    before = steps.has_sent

    steps.say(0, "analyze", StepStatus.IN_PROGRESS)

    assert (before, steps.has_sent) == (False, True)


async def test_a_message_is_one_line_without_secrets_and_is_cut_after_they_are_hidden() -> None:
    orchestrator = Orchestrator()
    steps = Steps(orchestrator.hand_in, hidden=hidden)

    steps.say(1, "patch", StepStatus.FAILED, f"no:\n\x1b[31m{SECRET}\u202e is wrong")
    steps.say(2, "build", StepStatus.FAILED, "x" * (LONGEST_MESSAGE - 5) + SECRET)
    steps.say(3, "restart", StepStatus.FAILED, f"the key {OF_TWO_LINES}, and correct-\u200bhorse-battery")

    assert [report.message for report in orchestrator.reports] == [
        "no: [31m[redacted] is wrong",
        "x" * (LONGEST_MESSAGE - 5) + "[reda",
        "the key [redacted], and [redacted]",
    ]


async def test_a_report_that_is_lost_on_its_way_harms_nothing() -> None:
    orchestrator = Orchestrator()
    steps = Steps(orchestrator.hand_in, hidden=hidden)
    steps.say(0, "analyze", StepStatus.IN_PROGRESS)
    steps.say(0, "analyze", StepStatus.SUCCEEDED)
    lost, given_up = orchestrator.waiting

    lost.set_exception(OSError("gone"))
    given_up.cancel()
    await asyncio.sleep(0)
    steps.say(1, "patch", StepStatus.IN_PROGRESS)

    assert len(orchestrator.reports) == 3


async def test_a_step_that_has_no_name_of_a_step_is_the_fault_of_its_executor() -> None:
    orchestrator = Orchestrator()
    steps = Steps(orchestrator.hand_in, hidden=hidden)

    with pytest.raises(ValidationError, match="name"):
        steps.say(0, "Analyze it", StepStatus.IN_PROGRESS)

    assert (orchestrator.reports, steps.has_sent) == ([], False)


def test_what_an_earlier_life_has_to_report_is_a_message_of_this_agent() -> None:
    agent_id, task_id, trace_id = uuid4(), uuid4(), uuid4()
    reports = [make_step(4, "verify", status="failed"), make_step(5, "rollback", status="succeeded")]

    envelope = status_of(agent_id, task_id, 2, reports, trace_id=trace_id)

    assert decode(encode(envelope)) == envelope
    assert isinstance(envelope, WorkStatusEnvelope)
    assert (envelope.from_agent, envelope.trace_id) == (str(agent_id), trace_id)
    said = envelope.payload
    assert (said.agent_id, said.task_id, said.attempt, said.steps) == (agent_id, task_id, 2, reports)
