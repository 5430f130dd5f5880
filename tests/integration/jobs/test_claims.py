"""Who gets which job: in order, each to one worker, put back when a lease ends, at once for those who wait."""

import asyncio
from uuid import uuid4

import httpx2

from orchestrator.database.pool import Pool
from tests.eventually import eventually
from tests.integration.jobs.asking import claim, create, get, post, register
from tests.integration.jobs.conftest import serving

END_LEASE = "UPDATE task SET lease_expires_at = now() - interval '1 second' WHERE task_id = $1"


async def end_lease(pool: Pool, job_id: str) -> None:
    """Let the lease of a job have ended a second ago."""
    async with pool.acquire() as db:
        assert await db.execute(END_LEASE, job_id) == "UPDATE 1"


async def test_the_highest_priority_comes_first_and_among_equals_the_oldest(queue: httpx2.AsyncClient) -> None:
    priorities = [0, 5, 1 - 2**53, 5, 2**53 - 1, 0]
    made = [(await create(queue, f"type_{n % 3}", priority=priority))["id"] for n, priority in enumerate(priorities)]

    taken = [await claim(queue) for _ in made]

    assert [job["id"] for job in taken if job] == [made[i] for i in (4, 1, 3, 0, 5, 2)]
    assert await claim(queue) is None


async def test_a_worker_gets_only_the_types_that_it_allows(queue: httpx2.AsyncClient) -> None:
    await create(queue, "video", priority=9)
    sound = await create(queue, "sound")

    assert await claim(queue, allowedTypes=["text"]) is None
    assert await claim(queue, allowedTypes=[]) is None
    taken = await claim(queue, allowedTypes=["sound", "text"])

    assert taken is not None
    assert taken["id"] == sound["id"]


async def test_of_sixteen_who_claim_at_once_no_two_get_the_same_job(queue: httpx2.AsyncClient) -> None:
    made = [(await create(queue))["id"] for _ in range(60)]

    async def work(worker: str) -> list[str]:
        got = []
        while (job := await claim(queue, worker)) is not None:
            got.append(job["id"])
        return got

    taken = await asyncio.gather(*(work(f"worker-{number}") for number in range(16)))

    assert sorted(job for jobs in taken for job in jobs) == sorted(made)


async def test_a_job_whose_lease_ended_is_given_to_the_next_and_fails_when_attempts_are_used_up(
    queue: httpx2.AsyncClient, pool: Pool
) -> None:
    job = await create(queue, maxAttempts=2)
    for attempt in (1, 2):
        taken = await claim(queue, f"worker-{attempt}", waitSeconds=10)
        assert taken is not None
        assert (taken["id"], taken["attempt"]) == (job["id"], attempt)
        await end_lease(pool, job["id"])

    assert await claim(queue, "worker-3") is None

    async def has_failed() -> bool:
        return bool((await get(queue, job["id"]))["status"] == "failed")

    await eventually(has_failed)
    assert "agent lost" in (await get(queue, job["id"]))["errorMessage"]
    assert await claim(queue, "worker-3") is None
    await post(queue, f"/jobs/{job['id']}/complete", status=409, workerId="worker-1", attempt=1)


async def test_a_job_whose_lease_has_ended_is_given_in_the_very_claim_that_finds_it(
    queue: httpx2.AsyncClient, pool: Pool
) -> None:
    job = await create(queue)
    await claim(queue, "lost")
    await end_lease(pool, job["id"])

    taken = await claim(queue, "next")

    assert taken is not None
    assert (taken["id"], taken["attempt"]) == (job["id"], 2)


async def test_a_lease_that_ended_while_there_was_no_orchestrator_is_not_lost_yet(ledger_url: str, pool: Pool) -> None:
    async with serving(ledger_url) as before:
        job = await create(before)
        await claim(before, "worker-1")
    await end_lease(pool, job["id"])

    async with serving(ledger_url) as after:
        assert await claim(after, "worker-2") is None
        done = await post(after, f"/jobs/{job['id']}/complete", workerId="worker-1", attempt=1)

    assert (done["status"], done["attempt"]) == ("succeeded", 1)


async def test_a_job_that_appears_is_given_at_once_to_one_of_those_who_wait(queue: httpx2.AsyncClient) -> None:
    waiting = [asyncio.create_task(claim(queue, f"worker-{number}", waitSeconds=30)) for number in range(5)]
    await asyncio.sleep(0.3)

    job = await create(queue)
    done, still = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=15)

    assert [found["id"] for task in done if (found := task.result())] == [job["id"]]
    assert len(still) == 4
    for task in still:
        task.cancel()
    await asyncio.gather(*still, return_exceptions=True)


async def test_a_claim_that_is_repeated_gets_the_same_job(queue: httpx2.AsyncClient) -> None:
    await create(queue)
    await create(queue)
    claim_id = str(uuid4())

    first = await claim(queue, claimId=claim_id)
    assert first is not None
    assert await claim(queue, claimId=claim_id) == first
    assert await claim(queue, claimId=claim_id, allowedTypes=[]) == first
    other = await claim(queue, claimId=str(uuid4()))
    assert other is not None
    assert other["id"] != first["id"]
    assert await claim(queue, claimId=str(uuid4()), allowedTypes=[]) is None


async def test_a_claim_whose_caller_left_gets_nothing(queue: httpx2.AsyncClient) -> None:
    waiting = asyncio.create_task(claim(queue, "gone", waitSeconds=20))
    await asyncio.sleep(0.3)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0.2)
    job = await create(queue)

    taken = await claim(queue, "here")

    assert taken is not None
    assert (taken["id"], taken["claimedBy"]) == (job["id"], "here")


async def test_a_worker_that_is_paused_gets_nothing_until_it_is_resumed(queue: httpx2.AsyncClient) -> None:
    await create(queue)
    assert await claim(queue, "worker-1", allowedTypes=["other"]) is None
    agents = (await queue.get("/api/v1/agents")).json()
    [agent] = [agent for agent in agents if agent["hostname"] == "worker-1"]
    assert (await queue.post(f"/api/v1/agents/{agent['agent_id']}/pause", json={"note": "disk"})).status_code == 200

    assert await claim(queue, "worker-1") is None
    told = await post(queue, "/workers/worker-1/heartbeat")
    assert [(order["action"], order["note"]) for order in told["orders"]] == [("pause", "disk")]
    await queue.post(f"/api/v1/agents/{agent['agent_id']}/resume", json={})
    assert await claim(queue, "worker-1") is not None


async def test_a_worker_that_does_not_say_when_it_started_stays_drained(queue: httpx2.AsyncClient) -> None:
    await post(queue, "/workers/worker-1/heartbeat")
    [agent] = (await queue.get("/api/v1/agents")).json()
    await queue.post(f"/api/v1/agents/{agent['agent_id']}/drain", json={})

    for _ in range(2):
        told = await post(queue, "/workers/worker-1/heartbeat")
        assert [order["action"] for order in told["orders"]] == ["drain"]


async def test_a_task_that_was_dispatched_is_a_job_and_its_priority_counts(queue: httpx2.AsyncClient) -> None:
    low, high = str(uuid4()), str(uuid4())
    for task_id, priority in ((low, 2), (high, 5)):
        body = {"task_id": task_id, "work_type": "echo", "parameters": {"message": "x"}, "priority": priority}
        assert (await queue.post("/api/v1/dispatch", json=body)).status_code == 200
    normal = await create(queue, "echo", payload={"message": "x"})
    await register(queue, "worker-1", "infra")

    taken = [await claim(queue) for _ in range(3)]

    assert [(job["id"], job["priority"]) for job in taken if job] == [(high, 2), (normal["id"], 0), (low, -1)]
    await post(queue, f"/jobs/{high}/complete", workerId="worker-1", resultSummary="done")
    status = (await queue.get(f"/api/v1/status/{high}")).json()
    assert (status["status"], status["output"]) == ("completed", "done")
