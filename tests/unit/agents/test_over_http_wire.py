"""What the agent's messages are in the queue API, and back."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from pydantic import ValidationError

from agents.over_http import wire
from agents.over_http.orders import standing
from common.confinement import Confinement
from common.messages import AgentStatus, Resources, ResultStatus, StatusUpdate, Stream, WorkResult
from common.orders import Drain, Pause
from common.policy.model import Effect
from common.rest.bodies import body_of
from common.rest.jobs import CompleteRequest, FailRequest, JobGrant, OutputRequest
from common.rest.workers import WorkerOrders, WorkerReport
from tests.factories import make_chunk, make_job

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
        "output_bytes": {Stream.STDOUT: 7},
    }
    return WorkResult.model_validate({**values, **changes})


def result_request(result: WorkResult) -> tuple[object, dict[str, object]]:
    """Return which request ends a job, and its JSON."""
    model, said = wire.end(result)
    return model, body_of(model, worker_id="w", **said)


def test_a_result_names_its_attempt_and_what_it_wrote() -> None:
    what, body = result_request(make_result(ResultStatus.COMPLETED, exit_code=0, artifacts_path="/srv/out"))

    assert what is CompleteRequest
    assert body == {
        "workerId": "w",
        "attempt": 2,
        "artifactsPath": "/srv/out",
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

    assert {what for what, _ in (failed, stopped, untouched)} == {FailRequest}
    told = ("retryable", "started", "cancelled")
    assert [[body[name] for name in told] for _, body in (failed, stopped, untouched)] == [
        [True, True, False],
        [False, True, True],
        [False, False, False],
    ]
    assert (failed[1]["errorMessage"], failed[1]["errorCode"]) == ("no", 5002)
    assert "errorCode" not in stopped[1]


def test_a_message_that_no_database_stores_is_made_storable() -> None:
    _, body = result_request(make_result(ResultStatus.FAILED, error_message="\x00" + "x" * 4095))

    assert body["errorMessage"] == "\N{REPLACEMENT CHARACTER}" + "x" * 4095


def test_what_was_dropped_is_told_only_when_something_was() -> None:
    whole = result_request(make_result(ResultStatus.COMPLETED))[1]
    cut = result_request(make_result(ResultStatus.COMPLETED, output_dropped={Stream.STDERR: 3}))[1]

    assert ("outputDropped" in whole, cut["outputDropped"]) == (False, {"stderr": 3})


def test_a_job_is_a_grant_whose_fence_is_its_attempt() -> None:
    job = make_job(payload={"message": "x"}, attempt=3, max_output_bytes=99)

    grant = wire.granted(job, None, claim_id=uuid4(), lease_seconds=10)

    assert (grant.work.task_id, grant.work.work_type, grant.work.parameters) == (job.id, "echo", {"message": "x"})
    assert (grant.attempt, grant.trace_id, grant.max_output_bytes) == (3, job.trace_id, 99)


def test_nothing_that_a_grant_says_is_lost_on_its_way() -> None:
    said = {
        "hints": {"agent_type": "infra"},
        "target": "infra",
        "policyVersion": "1-0",
        "effect": "read",
        "approvalId": str(uuid4()),
        "confinement": {"maxOpenFiles": 64, "networkOff": True},
    }
    terms = JobGrant.model_validate(said)

    grant = wire.granted(make_job(), terms, claim_id=uuid4(), lease_seconds=10)

    assert terms.model_dump(mode="json", by_alias=True) == said
    assert (grant.work.hints, grant.target, grant.policy_version) == ({"agent_type": "infra"}, "infra", "1-0")
    assert (grant.effect, str(grant.approval_id)) == (Effect.READ, said["approvalId"])
    assert grant.confinement == Confinement(network_off=True, max_open_files=64)


def test_a_demand_that_this_agent_does_not_know_is_no_grant() -> None:
    said: dict[str, object] = {"hints": {}, "target": None, "policyVersion": "", "effect": "read", "approvalId": None}

    with pytest.raises(ValidationError, match="extra_forbidden"):
        JobGrant.model_validate(said | {"confinement": {"noPaging": True}})


def test_a_heartbeat_and_a_piece_of_output_are_what_the_queue_api_takes() -> None:
    update = make_update().model_copy(update={"hostname": "h" * 255, "labels": {"zone": "eu"}, "boot_id": uuid4()})
    piece = make_chunk(2, "x", offset=7, stream=Stream.STDERR)

    report = body_of(WorkerReport, **wire.heartbeat(update))
    output = body_of(OutputRequest, worker_id="w", **wire.output(piece, attempt=4))

    assert report == {
        "agentType": "infra",
        "hostname": "h" * 200,
        "version": "1",
        "workTypes": ["echo"],
        "slots": 1,
        "currentJobs": [],
        "status": "online",
        "resources": {
            "cpuPercent": 1.0,
            "memoryPercent": 2.0,
            "cores": None,
            "load": None,
            "memoryFreeGb": None,
            "gpuVramTotalGb": None,
            "gpuVramAvailableGb": None,
        },
        "labels": {"zone": "eu"},
        "startedAt": "2026-01-01T00:00:00Z",
        "bootId": str(update.boot_id),
    }
    assert output == {
        "workerId": "w",
        "attempt": 4,
        "stream": "stderr",
        "offset": 7,
        "number": 2,
        "text": "x",
    }


def test_schemas_are_said_where_there_are_any() -> None:
    own = {"render": {"description": "Render a scene."}}
    update = make_update().model_copy(update={"schemas": own})

    assert body_of(WorkerReport, **wire.heartbeat(update))["schemas"] == own


def test_to_leave_is_more_than_to_wait_and_what_is_not_known_is_not_followed() -> None:
    pause = {"action": "pause", "until": UNTIL.isoformat(), "note": ""}
    drain = {"action": "drain", "note": "upgrade"}
    update = make_update()

    def ordered(*orders: object) -> Pause | Drain | None:
        return standing(WorkerOrders.model_validate({"orders": list(orders), "cancelled": []}), update)

    assert ordered() is None
    assert ordered(pause) == Pause(until=UNTIL)
    assert ordered(pause, drain) == Drain(started_at=STARTED, note="upgrade")
    assert ordered({"action": "dance"}, pause) == Pause(until=UNTIL)
