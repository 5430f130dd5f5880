"""What the agent's messages are in the queue API, and back."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from agents.over_http.orders import standing
from agents.over_http.wire import Job, Orders, result_request
from common.messages import AgentStatus, Resources, ResultStatus, StatusUpdate, Stream, WorkResult
from common.orders import Drain, Pause

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
UNTIL = STARTED + timedelta(hours=1)


def make_update() -> StatusUpdate:
    return StatusUpdate(
        agent_id=uuid4(),
        agent_type="infra",
        status=AgentStatus.ONLINE,
        hostname="host",
        version="1",
        work_types=["echo"],
        slots=1,
        resources=Resources(cpu_percent=1, memory_percent=2),
        started_at=STARTED,
    )


def make_result(status: ResultStatus, **changes: object) -> WorkResult:
    values = {
        "task_id": uuid4(),
        "status": status,
        "output": "the end",
        "duration_ms": 5,
        "agent_id": uuid4(),
        "attempt": 2,
        "fence": 7,
        "output_bytes": {Stream.STDOUT: 7},
    }
    return WorkResult.model_validate({**values, **changes})


def test_a_result_names_its_attempt_and_what_it_wrote() -> None:
    what, body = result_request(make_result(ResultStatus.COMPLETED, exit_code=0))

    assert what == "complete"
    assert body == {
        "attempt": 2,
        "resultSummary": "the end",
        "exitCode": 0,
        "durationMs": 5,
        "outputBytes": {"stdout": 7},
    }


@pytest.mark.parametrize("status", ResultStatus)
def test_what_the_work_returned_goes_with_its_end(status: ResultStatus) -> None:
    _, body = result_request(make_result(status, result={"web1": {"ok": 3}}))

    assert body["result"] == {"web1": {"ok": 3}}


def test_a_failure_a_stop_and_untouched_work_are_told_apart() -> None:
    failed = result_request(make_result(ResultStatus.FAILED, error_message="no", error_code=5002, retryable=True))
    stopped = result_request(make_result(ResultStatus.CANCELLED))
    untouched = result_request(make_result(ResultStatus.FAILED, error_message="late", started=False))

    assert {what for what, _ in (failed, stopped, untouched)} == {"fail"}
    told = ("retryable", "started", "cancelled")
    assert [[body[name] for name in told] for _, body in (failed, stopped, untouched)] == [
        [True, True, False],
        [False, True, True],
        [False, False, False],
    ]
    assert (failed[1]["errorMessage"], failed[1]["errorCode"]) == ("no", 5002)
    assert "errorCode" not in stopped[1]


def test_a_message_that_no_database_stores_is_made_storable_and_short() -> None:
    _, body = result_request(make_result(ResultStatus.FAILED, error_message="\x00" + "x" * 5000))

    assert body["errorMessage"] == "\N{REPLACEMENT CHARACTER}" + "x" * 4095


def test_what_was_dropped_is_told_only_when_something_was() -> None:
    whole = result_request(make_result(ResultStatus.COMPLETED))[1]
    cut = result_request(make_result(ResultStatus.COMPLETED, output_dropped={Stream.STDERR: 3}))[1]

    assert ("outputDropped" in whole, cut["outputDropped"]) == (False, {"stderr": 3})


def test_a_job_is_a_grant_whose_fence_is_its_attempt() -> None:
    job = Job.model_validate(
        {
            "id": str(uuid4()),
            "type": "echo",
            "payload": {"message": "x"},
            "attempt": 3,
            "traceId": str(uuid4()),
            "requestId": str(uuid4()),
            "status": "running",
            "maxOutputBytes": 99,
        }
    )

    grant = job.granted(uuid4(), None, lease_seconds=10)

    assert (grant.work.task_id, grant.work.work_type, grant.work.parameters) == (job.id, "echo", {"message": "x"})
    assert (grant.attempt, grant.fence, grant.trace_id, grant.max_output_bytes) == (3, 3, job.trace_id, 99)


def test_to_leave_is_more_than_to_wait_and_is_meant_for_this_process() -> None:
    pause = {"action": "pause", "until": UNTIL.isoformat(), "note": None}
    drain = {"action": "drain", "note": "upgrade"}
    update = make_update()

    def ordered(*orders: object) -> Pause | Drain | None:
        return standing(Orders.model_validate({"orders": list(orders)}), update)

    assert ordered() is None
    assert ordered(pause) == Pause(until=UNTIL)
    assert ordered(pause, drain) == Drain(started_at=STARTED, note="upgrade")
