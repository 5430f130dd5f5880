"""Over HTTP a worker reports inner steps, keeps files and gets those that its job brings; nobody else does for it."""

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx2
import pytest

from common.artifacts import MAX_PIECE_BYTES
from common.compose import COMPOSE_REPAIR
from common.messages import LAST_STEP, MOST_STEPS
from tests.integration.jobs.asking import Json, claim, create, post
from tests.integration.jobs.conftest import serving

STEP: Json = {"position": 0, "name": "analyze", "status": "in_progress"}
END: Json = {"position": 5, "name": LAST_STEP, "status": "succeeded", "finishedAt": "2026-11-22T10:00:00Z"}
CONTENT = b"hello"
PIECE: Json = {
    "name": "dist/a.whl",
    "type": "file",
    "sha256": sha256(CONTENT).hexdigest(),
    "size": len(CONTENT),
    "offset": 0,
    "data": b64encode(CONTENT).decode(),
}
# What only the worker whose attempt it is may say or ask.
REPORTS: dict[str, Json] = {"steps": {"steps": [STEP]}, "artifacts": PIECE, "files": {"path": "in/a.txt"}}

# A run that is open, and one of its units of work.
RUN = """
    INSERT INTO run (run_id, request_id, trace_id, plan, digest, status, requested_by)
    VALUES ($1, $2, $3, '{}', sha256(''), 'running', '{}')
"""
STEP_OF_RUN = "INSERT INTO run_step (run_id, step, kind, number, task_id) VALUES ($1, 'repair', 'step', 1, $2)"
AS_REPAIR = "UPDATE task SET work_type = $2 WHERE task_id = $1"


@pytest.fixture
async def queue(ledger_url: str, tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the queue API of an orchestrator that keeps files."""
    async with serving(ledger_url, artifacts_dir=tmp_path) as client:
        yield client


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(ledger_url)
    yield connection
    await connection.close()


async def taken(queue: httpx2.AsyncClient, worker: str = "worker-1", **body: Any) -> Json:
    """Have a worker take a new job."""
    await create(queue, **body)
    job = await claim(queue, worker)
    assert job is not None
    return job


async def say(
    queue: httpx2.AsyncClient, job: Json, what: str, *, worker: str = "worker-1", status: int = 200, **body: Any
) -> Json:
    return await post(
        queue, f"/jobs/{job['id']}/{what}", status=status, **{"workerId": worker, "attempt": job["attempt"], **body}
    )


async def told(queue: httpx2.AsyncClient, job: Json, kind: str) -> list[Json]:
    events = (await queue.get(f"/api/v1/tasks/{job['id']}/events?limit=500")).json()["items"]
    return [event["data"] for event in events if event["kind"] == kind]


async def test_steps_are_stored_once_and_an_end_may_be_forgotten_when_it_is(queue: httpx2.AsyncClient) -> None:
    job = await taken(queue)

    answers = [await say(queue, job, "steps", steps=steps) for steps in ([STEP], [STEP], [STEP, END], [END])]

    assert answers == [{"through": None}, {"through": None}, {"through": LAST_STEP}, {"through": LAST_STEP}]
    assert [(step["name"], step["status"]) for step in await told(queue, job, "task.step")] == [
        ("analyze", "in_progress"),
        (LAST_STEP, "succeeded"),
    ]


async def test_a_hundred_steps_travel_in_one_request_and_no_more(queue: httpx2.AsyncClient) -> None:
    job = await taken(queue)
    steps = [{"position": place, "name": f"step-{place}", "status": "succeeded"} for place in range(MOST_STEPS)]

    await say(queue, job, "steps", steps=steps)
    refused = await say(queue, job, "steps", status=422, steps=[*steps, STEP])

    assert len(await told(queue, job, "task.step")) == MOST_STEPS
    assert refused["errors"][0]["field"] == "body.steps"


async def test_what_happened_before_the_job_was_over_is_taken_after_it(queue: httpx2.AsyncClient) -> None:
    job = await taken(queue)
    await say(queue, job, "complete")

    assert await say(queue, job, "steps", steps=[END]) == {"through": LAST_STEP}
    assert (await say(queue, job, "artifacts", **PIECE))["refused"] is None

    assert len(await told(queue, job, "task.step")) == 1


async def test_a_file_is_stored_when_all_of_it_has_come(queue: httpx2.AsyncClient) -> None:
    job = await taken(queue)
    halves = [{**PIECE, "offset": at, "data": b64encode(CONTENT[at : at + 3]).decode()} for at in (0, 3)]

    first = await say(queue, job, "artifacts", **halves[0])
    second = await say(queue, job, "artifacts", **halves[1])
    again = await say(queue, job, "artifacts", **halves[0])

    assert first == {"stored": False, "refused": None}
    assert second == again == {"stored": True, "refused": None}
    assert len(await told(queue, job, "artifact.stored")) == 1


async def test_a_file_that_is_not_what_its_digest_says_is_refused_and_stays_refused(
    queue: httpx2.AsyncClient,
) -> None:
    job = await taken(queue)
    wrong = {**PIECE, "sha256": sha256(b"other").hexdigest()}

    answers = [await say(queue, job, "artifacts", **wrong) for _ in range(2)]

    assert all(not answer["stored"] and answer["refused"] for answer in answers)
    assert len(await told(queue, job, "artifact.missing")) == 1


async def test_a_job_gets_its_files_in_pieces_and_a_reason_for_those_that_it_does_not_have(
    queue: httpx2.AsyncClient,
) -> None:
    content = bytes(range(256)) * 1200
    starts = range(0, len(content), MAX_PIECE_BYTES)
    about: Json = {"name": "a.bin", "type": "file", "sha256": sha256(content).hexdigest(), "size": len(content)}
    source = await taken(queue)
    for at in starts:
        data = b64encode(content[at : at + MAX_PIECE_BYTES]).decode()
        kept = await say(queue, source, "artifacts", **about, offset=at, data=data)
    assert kept["stored"]
    await say(queue, source, "complete")
    job = await taken(queue, payload={"files": {"in/a.bin": {"task": source["id"], "artifact": "a.bin"}}})

    pieces = [await say(queue, job, "files", path="in/a.bin", offset=at) for at in starts]
    missing = await say(queue, job, "files", path="in/b.bin")

    assert b"".join(b64decode(piece["data"]) for piece in pieces) == content
    assert {(one["size"], one["sha256"], one["problem"], one["pending"]) for one in pieces} == {
        (about["size"], about["sha256"], "", False)
    }
    assert (missing["data"], missing["size"], missing["sha256"], missing["pending"]) == ("", 0, "", False)
    assert missing["problem"]


async def test_a_file_that_is_still_on_its_way_is_to_be_asked_for_again(queue: httpx2.AsyncClient) -> None:
    source = await taken(queue)
    job = await taken(queue, payload={"files": {"in/a": {"task": source["id"], "artifact": PIECE["name"]}}})

    before = await say(queue, job, "files", path="in/a")
    await say(queue, source, "artifacts", **PIECE)
    after = await say(queue, job, "files", path="in/a")

    assert (before["pending"], before["problem"], before["data"]) == (True, "", "")
    assert (after["pending"], b64decode(after["data"])) == (False, CONTENT)


@pytest.mark.parametrize("what", REPORTS)
async def test_only_the_worker_whose_attempt_it_is_is_heard(queue: httpx2.AsyncClient, what: str) -> None:
    job = await taken(queue)

    stranger = await say(queue, job, what, worker="worker-2", status=409, **REPORTS[what])
    never = await say(queue, job, what, status=409, **{**REPORTS[what], "attempt": 2})
    unknown = await say(queue, {"id": str(uuid4()), "attempt": 1}, what, status=404, **REPORTS[what])

    assert [answer["error_code"] for answer in (stranger, never, unknown)] == [2005, 2005, 2001]
    assert await told(queue, job, "task.step") == []
    assert await told(queue, job, "artifact.stored") == []


BAD_INPUT: tuple[tuple[str, Json, str], ...] = (
    ("steps", {}, "steps"),
    ("steps", {"steps": []}, "steps"),
    ("steps", {"steps": [{**STEP, "position": MOST_STEPS}]}, "steps.0.position"),
    ("steps", {"steps": [{**STEP, "position": -1}]}, "steps.0.position"),
    ("steps", {"steps": [{**STEP, "position": "1"}]}, "steps.0.position"),
    ("steps", {"steps": [{**STEP, "name": "Analyze"}]}, "steps.0.name"),
    ("steps", {"steps": [{**STEP, "name": "x" * 65}]}, "steps.0.name"),
    ("steps", {"steps": [{**STEP, "status": "pending"}]}, "steps.0.status"),
    ("steps", {"steps": [{**STEP, "startedAt": "2026-11-22T10:00:00"}]}, "steps.0.startedAt"),
    ("steps", {"steps": [{**STEP, "message": "a\nb"}]}, "steps.0.message"),
    ("steps", {"steps": [{**STEP, "message": "x" * 4097}]}, "steps.0.message"),
    ("steps", {"steps": [{**STEP, "started_at": None}]}, "steps.0.started_at"),
    ("steps", {"steps": [STEP], "attempt": 0}, "attempt"),
    ("artifacts", {**PIECE, "name": "../a"}, "name"),
    ("artifacts", {**PIECE, "name": ""}, "name"),
    ("artifacts", {**PIECE, "type": "A File"}, "type"),
    ("artifacts", {**PIECE, "sha256": "abc"}, "sha256"),
    ("artifacts", {**PIECE, "size": 4}, "data"),
    ("artifacts", {**PIECE, "size": 2**53}, "size"),
    ("artifacts", {**PIECE, "offset": 1}, "data"),
    ("artifacts", {**PIECE, "offset": True}, "offset"),
    ("artifacts", {**PIECE, "data": "?"}, "data"),
    ("artifacts", {**PIECE, "data": ""}, "data"),
    ("artifacts", {**PIECE, "size": 2**40, "data": b64encode(bytes(MAX_PIECE_BYTES + 1)).decode()}, "data"),
    ("files", {}, "path"),
    ("files", {"path": "/etc/passwd"}, "path"),
    ("files", {"path": "a", "offset": -1}, "offset"),
)


@pytest.mark.parametrize(("what", "body", "field"), BAD_INPUT, ids=[f"{what}-{field}" for what, _, field in BAD_INPUT])
async def test_bad_input_names_the_field(queue: httpx2.AsyncClient, what: str, body: Json, field: str) -> None:
    job = {"id": str(uuid4()), "attempt": 1}

    answer = await say(queue, job, what, status=422, **body)

    assert [error["field"] for error in answer["errors"]] == [f"body.{field}"]


async def test_a_worker_that_owns_the_end_of_its_work_is_asked_how_that_ended_until_it_says_so(
    queue: httpx2.AsyncClient, ledger: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    job, other = await taken(queue), await taken(queue, "worker-2")
    run_id = uuid4()
    await ledger.execute(RUN, run_id, uuid4(), uuid4())
    await ledger.execute(STEP_OF_RUN, run_id, UUID(job["id"]))
    for one in (job, other):
        await ledger.execute(AS_REPAIR, UUID(one["id"]), COMPOSE_REPAIR)

    async def asked(worker: str = "worker-1", work_type: str = COMPOSE_REPAIR) -> list[Json]:
        told = await post(queue, f"/workers/{worker}/heartbeat", workTypes=[work_type])
        settle: list[Json] = told["settle"]
        return settle

    while_it_runs = await asked()
    await post(queue, f"/jobs/{job['id']}/cancel")
    unsettled = {"jobId": job["id"], "attempt": job["attempt"]}

    assert while_it_runs == []
    assert [await asked() for _ in range(2)] == [[unsettled]] * 2
    # Neither somebody else, nor whoever does not own the end of anything.
    assert await asked("worker-2") == []
    assert await asked(work_type="render") == []

    await say(queue, job, "steps", steps=[{**END, "status": "in_progress"}])
    assert await asked() == [unsettled]
    await say(queue, job, "steps", steps=[END])
    assert await asked() == []
