"""Operators see what waits, who runs what, and what came of the last."""

from uuid import uuid4

import httpx2

from tests.integration.jobs.asking import claim, create, post


async def test_the_snapshot_counts_what_waits_by_pool_priority_and_age(queue: httpx2.AsyncClient) -> None:
    for priority in (0, 0, 5):
        await create(queue, priority=priority)
    await create(queue, "shell_script", payload={"argv": ["true"]})
    taken = await claim(queue, "worker-7", allowedTypes=["render"])
    assert taken is not None

    seen = (await queue.get("/ops/queue")).json()

    pools = {pool["pool"]: pool for pool in seen["pools"]}
    assert (pools["http"]["depth"], pools["http"]["by_priority"]) == (2, {"3": 2})
    assert pools["infra"]["depth"] == 1
    assert 0 <= pools["http"]["oldest_seconds"] < 60
    assert [(holder["name"], holder["running"]) for holder in seen["leases"]] == [("worker-7", 1)]
    assert (seen["held_by_keys"], seen["dead_letters"]) == (0, {})


async def test_the_last_outcomes_come_first(queue: httpx2.AsyncClient) -> None:
    ids = [(await create(queue, maxAttempts=1))["id"] for _ in range(3)]
    for _ in ids:
        await claim(queue)
    await post(queue, f"/jobs/{ids[1]}/complete", workerId="worker-1", resultSummary="well")
    await post(queue, f"/jobs/{ids[0]}/fail", workerId="worker-1", errorMessage="badly")

    ended = (await queue.get("/ops/executions", params={"limit": 5})).json()["items"]

    assert [(one["execution_id"], one["status"]) for one in ended] == [(ids[0], "failed"), (ids[1], "completed")]
    assert (ended[0]["error_message"], ended[1]["result"], ended[1]["command"]) == ("badly", "well", "render")
    assert len((await queue.get("/ops/executions", params={"limit": 1})).json()["items"]) == 1
    assert (await queue.get("/ops/executions", params={"limit": 0})).status_code == 422


async def test_what_waits_for_its_key_or_its_retry_is_counted_apart(queue: httpx2.AsyncClient) -> None:
    for _ in range(3):
        body = {"work_type": "echo", "ordering_key": "k"}
        answer = await queue.post("/api/v1/dispatch/batch", json={"tasks": [{**body, "task_id": _id()}]})
        assert answer.status_code == 200
    job = await create(queue)
    await claim(queue, allowedTypes=["render"])
    await post(queue, f"/jobs/{job['id']}/fail", workerId="worker-1", errorMessage="x", retryable=True)

    seen = (await queue.get("/ops/queue")).json()

    assert seen["held_by_keys"] == 2
    assert {pool["pool"]: (pool["depth"], pool["retries"]) for pool in seen["pools"]} == {
        "http": (0, 1),
        "infra": (1, 0),
    }


def _id() -> str:
    return str(uuid4())
