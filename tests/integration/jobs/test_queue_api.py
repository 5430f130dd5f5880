"""Programs create jobs, look at them, and workers take them to their end: over real HTTP, on a real ledger."""

from uuid import uuid4

import httpx2
import pytest

from orchestrator.database.pages import MOST_PAGE_BYTES
from orchestrator.settings import OrchestratorSettings
from tests.integration.jobs.asking import Json, claim, create, get, post

# What only the owner of a job may say of it.
REPORTS: dict[str, Json] = {
    "heartbeat": {"leaseSeconds": 5},
    "progress": {"progress": "x"},
    "output": {"stream": "stdout", "offset": 0, "number": 0, "text": "x"},
    "complete": {},
    "fail": {"errorMessage": "x"},
}
BAD_INPUT: tuple[tuple[str, Json, str], ...] = (
    ("/jobs", {"type": "render"}, "payload"),
    ("/jobs", {"type": "a\x00b"}, "type"),
    ("/jobs", {"type": "x" * 201}, "type"),
    ("/jobs", {"type": "render", "priority": "high"}, "priority"),
    ("/jobs", {"type": "render", "priority": "7"}, "priority"),
    ("/jobs", {"type": "render", "priority": True}, "priority"),
    ("/jobs", {"type": "render", "priority": 2**53}, "priority"),
    ("/jobs", {"type": "render", "maxAttempts": 0}, "maxAttempts"),
    ("/jobs", {"type": "render", "max_attempts": 2}, "max_attempts"),
    ("/jobs", {"type": "render", "payload": {"a": "\x00"}}, "payload"),
    ("/jobs", {"type": "render", "payload": {"a": [2**53]}}, "payload"),
    ("/jobs", {"type": "shell_script", "payload": {"argv": "ls"}}, "payload.argv"),
    ("/jobs/claim", {"workerId": "w", "leaseSeconds": 0}, "leaseSeconds"),
    ("/jobs/claim", {"workerId": "w", "leaseSeconds": 1_000_000}, "leaseSeconds"),
    ("/jobs/claim", {"workerId": "w" * 201, "leaseSeconds": 5}, "workerId"),
    (f"/jobs/{uuid4()}/heartbeat", {"workerId": "w", "leaseSeconds": 1_000_000}, "leaseSeconds"),
    ("/jobs/claim", {"workerId": "w", "leaseSeconds": 5, "waitSeconds": 61}, "waitSeconds"),
    ("/jobs/claim", {"workerId": "w", "leaseSeconds": 5, "allowedTypes": None}, "allowedTypes"),
    (f"/jobs/{uuid4()}/complete", {"workerId": "w", "result": "x" * 65_536}, "result"),
    (f"/jobs/{uuid4()}/complete", {"workerId": "w", "result": {"a": "\x00"}}, "result"),
    (f"/jobs/{uuid4()}/progress", {"workerId": "w", "progress": "x" * 206}, "progress"),
    (f"/jobs/{uuid4()}/progress", {"workerId": "w"}, "progress"),
)


ODD_TIMES = (
    ("0001-01-01T00:00:00+14:00", 422),
    ("9999-12-31T23:59:59-14:00", 422),
    ("2026-11-22T10:00:00", 422),
    (5, 422),
    ("0001-01-01T00:00:00Z", 200),
    ("9999-12-31T23:59:59.999999Z", 200),
)


@pytest.mark.parametrize("field", ["startedAt", "sentAt"])
@pytest.mark.parametrize(("time", "status"), ODD_TIMES, ids=str)
async def test_a_time_of_a_worker_is_kept_or_refused_by_its_name(
    queue: httpx2.AsyncClient, field: str, time: object, status: int
) -> None:
    answers = [await queue.post("/api/queue/workers/w-1/heartbeat", json={field: time}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [status] * 2
    if status == 422:
        assert [error["field"] for error in answers[0].json()["errors"]] == [f"body.{field}"]


async def test_a_job_shows_everything_that_is_known_of_it(queue: httpx2.AsyncClient) -> None:
    made = await create(queue, payload={"scene": 7}, priority=12, affinityKey="gpu", maxAttempts=2)

    assert made["status"] == "queued"
    assert (made["type"], made["priority"], made["payload"]) == ("render", 12, {"scene": 7})
    assert (made["affinityKey"], made["attempt"], made["maxAttempts"]) == ("gpu", 0, 2)
    assert made["maxOutputBytes"] == OrchestratorSettings().max_output_bytes
    assert {made[name] for name in ("claimedBy", "leaseExpiresAt", "resultSummary", "startedAt", "finishedAt")} == {
        None
    }
    assert await get(queue, made["id"]) == made


async def test_a_worker_takes_a_job_to_its_end(queue: httpx2.AsyncClient) -> None:
    made = await create(queue)

    taken = await claim(queue, "worker-1")
    assert taken is not None
    assert (taken["id"], taken["status"], taken["claimedBy"], taken["attempt"]) == (
        made["id"],
        "running",
        "worker-1",
        1,
    )
    beat = await post(queue, f"/jobs/{made['id']}/heartbeat", workerId="worker-1", attempt=1, leaseSeconds=60)
    assert beat["cancelled"] is False
    assert beat["leaseExpiresAt"] > taken["leaseExpiresAt"]
    assert beat == await get(queue, made["id"]) | {"cancelled": False}
    moved = await post(queue, f"/jobs/{made['id']}/progress", workerId="worker-1", attempt=1, progress="50% half")
    assert moved["status"] == "running"
    known = (await queue.get(f"/api/v1/status/{made['id']}")).json()
    assert (known["progress"], known["percent"]) == ("50% half", 50)
    await post(
        queue,
        f"/jobs/{made['id']}/output",
        workerId="worker-1",
        attempt=1,
        stream="stdout",
        offset=0,
        number=0,
        text="hi",
    )
    done = await post(
        queue,
        f"/jobs/{made['id']}/complete",
        workerId="worker-1",
        attempt=1,
        resultSummary="seven frames",
        artifactsPath="/out/7",
        result={"frames": 7},
        outputBytes={"stdout": 2, "stderr": 0},
    )

    assert (done["status"], done["resultSummary"], done["artifactsPath"]) == ("succeeded", "seven frames", "/out/7")
    assert done["finishedAt"] is not None
    page = (await queue.get(f"/api/v1/tasks/{made['id']}/output?stream=stdout")).json()
    assert (page["text"], page["complete"]) == ("hi", True)


async def test_an_end_that_is_repeated_is_answered_as_before_and_another_is_refused(queue: httpx2.AsyncClient) -> None:
    path = f"/jobs/{(await create(queue))['id']}"
    await claim(queue)
    done = await post(queue, f"{path}/complete", workerId="worker-1", attempt=1, resultSummary="once")

    again = await post(queue, f"{path}/complete", workerId="worker-1", attempt=1, resultSummary="twice")

    assert again == done
    await post(queue, f"{path}/fail", status=409, workerId="worker-1", attempt=1, errorMessage="no")
    await post(queue, f"{path}/heartbeat", status=409, workerId="worker-1", attempt=1, leaseSeconds=5)
    await post(queue, f"{path}/cancel", status=409)


async def test_only_the_owner_is_heard(queue: httpx2.AsyncClient) -> None:
    job = await create(queue)
    await post(queue, f"/jobs/{job['id']}/complete", status=409, workerId="worker-1")
    await claim(queue, "worker-1")
    before = await get(queue, job["id"])

    for path, body in REPORTS.items():
        problem = await post(queue, f"/jobs/{job['id']}/{path}", status=409, workerId="worker-2", **body)
        assert problem["error_code"] == 2005

    assert await get(queue, job["id"]) == before


async def test_a_failure_is_retried_while_attempts_remain(queue: httpx2.AsyncClient) -> None:
    job = await create(queue, maxAttempts=2)
    await claim(queue)
    failed = await post(
        queue, f"/jobs/{job['id']}/fail", workerId="worker-1", attempt=1, errorMessage="no disk", retryable=True
    )
    assert (failed["status"], failed["errorMessage"]) == ("queued", "no disk")

    assert await claim(queue) is None  # its retry is not due yet
    again = await claim(queue, waitSeconds=10)
    assert again is not None
    assert (again["id"], again["attempt"]) == (job["id"], 2)
    # The old attempt is over: what is said about it comes too late.
    await post(queue, f"/jobs/{job['id']}/complete", status=409, workerId="worker-1", attempt=1)
    failed = await post(
        queue, f"/jobs/{job['id']}/fail", workerId="worker-1", attempt=2, errorMessage="no disk", retryable=True
    )
    assert failed["status"] == "failed"


async def test_a_job_that_is_handed_back_untouched_costs_no_attempt(queue: httpx2.AsyncClient) -> None:
    job = await create(queue, maxAttempts=1)
    await claim(queue)
    back = await post(
        queue, f"/jobs/{job['id']}/fail", workerId="worker-1", attempt=1, errorMessage="leaving", started=False
    )
    assert back["status"] == "queued"

    assert await claim(queue, "worker-2") is not None
    done = await post(queue, f"/jobs/{job['id']}/complete", workerId="worker-2")
    assert done["status"] == "succeeded"


async def test_a_cancelled_job_takes_no_progress_and_its_worker_may_still_say_that_it_stopped(
    queue: httpx2.AsyncClient,
) -> None:
    path = f"/jobs/{(await create(queue))['id']}"
    await claim(queue)
    await post(queue, f"{path}/progress", workerId="worker-1", attempt=1, progress="10% begun")
    await post(queue, f"{path}/cancel")

    told = await post(queue, f"{path}/progress", workerId="worker-1", attempt=1, progress="20% unaware")
    await post(queue, f"{path}/fail", workerId="worker-1", attempt=1, errorMessage="stopped", cancelled=True)
    later = await post(queue, f"{path}/progress", status=409, workerId="worker-1", attempt=1, progress="30% late")

    assert told["status"] == "cancelled"
    assert later["error_code"] == 2005
    assert (await queue.get(f"/api/v1/status/{told['id']}")).json()["progress"] == "10% begun"


async def test_a_cancelled_job_tells_its_worker_and_takes_no_result(queue: httpx2.AsyncClient) -> None:
    job = await create(queue)
    await claim(queue)
    cancelled = await post(queue, f"/jobs/{job['id']}/cancel")
    assert cancelled["status"] == "cancelled"
    assert (await post(queue, f"/jobs/{job['id']}/cancel"))["status"] == "cancelled"

    beat = await post(queue, f"/jobs/{job['id']}/heartbeat", workerId="worker-1", attempt=1, leaseSeconds=5)
    assert beat["cancelled"] is True
    told = await post(queue, "/workers/worker-1/heartbeat", currentJobs=[job["id"]])
    assert told["cancelled"] == [{"jobId": job["id"], "attempt": 1}]
    await post(queue, f"/jobs/{job['id']}/complete", status=409, workerId="worker-1", attempt=1)
    stopped = await post(
        queue, f"/jobs/{job['id']}/fail", workerId="worker-1", attempt=1, errorMessage="stopped", cancelled=True
    )
    assert stopped["status"] == "cancelled"
    await post(queue, f"/jobs/{job['id']}/heartbeat", status=409, workerId="worker-1", attempt=1, leaseSeconds=5)


async def test_a_worker_is_told_to_stop_its_own_jobs_and_only_while_they_run(queue: httpx2.AsyncClient) -> None:
    job = await create(queue)
    await claim(queue, "worker-1")
    await post(queue, f"/jobs/{job['id']}/cancel")

    async def told(worker: str) -> list[Json]:
        answer = await post(queue, f"/workers/{worker}/heartbeat", currentJobs=[job["id"]])
        stop: list[Json] = answer["cancelled"]
        return stop

    assert await told("worker-2") == []
    assert await told("worker-1") == [{"jobId": job["id"], "attempt": 1}]
    await post(queue, f"/jobs/{job['id']}/fail", workerId="worker-1", attempt=1, errorMessage="no", cancelled=True)
    assert await told("worker-1") == []


async def test_an_attempt_that_is_over_says_nothing_of_the_one_that_runs(queue: httpx2.AsyncClient) -> None:
    path = f"/jobs/{(await create(queue))['id']}"
    await claim(queue, "worker-1")
    await post(queue, f"{path}/fail", workerId="worker-1", attempt=1, errorMessage="leaving", started=False)
    again = await claim(queue, "worker-2")
    assert again is not None
    assert again["attempt"] == 2
    before = await get(queue, again["id"])

    for report in ("heartbeat", "progress", "complete"):
        said = await post(queue, f"{path}/{report}", status=409, workerId="worker-1", attempt=1, **REPORTS[report])
        assert said["error_code"] == 2005, report

    assert await get(queue, again["id"]) == before


async def test_jobs_are_listed_newest_first_with_a_cursor(queue: httpx2.AsyncClient) -> None:
    made = [(await create(queue, f"type_{number % 2}"))["id"] for number in range(5)]
    await claim(queue, allowedTypes=["type_0"])

    async def listed(**query: str | int) -> list[str]:
        answer = (await queue.get("/api/queue/jobs", params=query)).json()
        return [item["id"] for item in answer["items"]]

    assert await listed() == made[::-1]
    assert await listed(type="type_1") == [made[3], made[1]]
    assert await listed(status="running") == [made[0]]
    first = (await queue.get("/api/queue/jobs", params={"limit": 2})).json()
    assert [item["id"] for item in first["items"]] == [made[4], made[3]]
    assert await listed(limit=3, cursor=first["nextCursor"]) == [made[2], made[1], made[0]]


@pytest.mark.parametrize("number", ["1e308", "1e19", "9007199254740994.0", "9223372036854775808"])
async def test_a_number_that_would_grow_is_refused_by_its_place_and_nothing_is_stored(
    queue: httpx2.AsyncClient, number: str
) -> None:
    body = f'{{"type": "big", "payload": {{"x": [{", ".join([number] * 10_000)}]}}}}'

    answer = await queue.post("/api/queue/jobs", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert problem["field"] == "body.payload"
    assert problem["message"].startswith("x.0: must not contain")
    assert (await queue.get("/api/queue/jobs")).json()["items"] == []


async def test_a_list_of_large_jobs_ends_early_and_its_pages_show_each_job_once(queue: httpx2.AsyncClient) -> None:
    made = [(await create(queue, payload={"text": "x" * 500_000}))["id"] for _ in range(20)]

    first = await queue.get("/api/queue/jobs", params={"limit": 200})
    rest = await queue.get("/api/queue/jobs", params={"limit": 200, "cursor": first.json()["nextCursor"]})

    assert len(first.content) < MOST_PAGE_BYTES + 600_000
    assert [job["id"] for page in (first, rest) for job in page.json()["items"]] == made[::-1]
    assert "nextCursor" not in rest.json() or rest.json()["nextCursor"] is None


async def test_a_creation_that_is_repeated_is_the_same_job(queue: httpx2.AsyncClient) -> None:
    request_id = str(uuid4())
    first = await create(queue, requestId=request_id, payload={"n": 1})

    again = await post(queue, "/jobs", status=200, type="render", requestId=request_id, payload={"n": 1})

    assert again == first
    other = await post(queue, "/jobs", status=409, type="render", requestId=request_id, payload={"n": 2})
    assert other["error_code"] == 1003


async def test_bad_input_names_the_field(queue: httpx2.AsyncClient) -> None:
    for path, body, field in BAD_INPUT:
        problem = await post(queue, path, status=422, **body)

        assert any(field in error["field"] for error in problem["errors"]), (path, body)


async def test_unknown_ids_are_not_found_and_change_nothing(queue: httpx2.AsyncClient) -> None:
    unknown = uuid4()
    job = await create(queue)
    agents = (await queue.get("/api/v1/agents")).json()

    assert (await queue.get(f"/api/queue/jobs/{unknown}")).status_code == 404
    await post(queue, f"/jobs/{unknown}/cancel", status=404)
    for path, body in REPORTS.items():
        await post(queue, f"/jobs/{unknown}/{path}", status=404, workerId="w", **body)

    assert (await queue.get("/api/queue/jobs")).json()["items"] == [job]
    assert (await queue.get("/api/v1/agents")).json() == agents


@pytest.mark.parametrize("type", ["Render-4K", "", "ein Bild ☂", "a.b/c"])
async def test_a_job_of_any_type_is_taken_to_its_end(queue: httpx2.AsyncClient, type: str) -> None:
    job = await create(queue, type)

    assert [item["id"] for item in (await queue.get("/api/queue/jobs", params={"type": type})).json()["items"]] == [
        job["id"]
    ]
    listed = (await queue.get("/api/v1/tasks", params={"work_type": type})).json()["items"]
    assert [item["task_id"] for item in listed] == [job["id"]]
    assert await claim(queue, allowedTypes=["other"]) is None
    taken = await claim(queue, allowedTypes=[type])
    assert taken is not None
    assert taken["type"] == type
    told = await post(queue, "/workers/worker-1/heartbeat", workTypes=[type], currentJobs=[job["id"]])
    assert told["cancelled"] == []
    done = await post(queue, f"/jobs/{job['id']}/complete", workerId="worker-1", attempt=1)
    assert done["status"] == "succeeded"


async def test_a_failure_may_say_nothing(queue: httpx2.AsyncClient) -> None:
    job = await create(queue)
    await claim(queue)

    failed = await post(queue, f"/jobs/{job['id']}/fail", workerId="worker-1", attempt=1, errorMessage="")

    assert (failed["status"], failed["errorMessage"]) == ("failed", "")


async def test_the_same_numbers_in_other_words_are_the_same_job(queue: httpx2.AsyncClient) -> None:
    request_id = str(uuid4())
    first = await create(queue, requestId=request_id, payload={"n": [10, 1.5]}, priority=0)

    again = await post(
        queue, "/jobs", status=200, type="render", requestId=request_id, payload={"n": [10.0, 1.50]}, priority=0.0
    )

    assert again == first
