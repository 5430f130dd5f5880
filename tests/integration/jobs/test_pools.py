"""Where no token is asked for, a worker has one pool all the same: the one that it registered with first."""

import httpx2

from tests.integration.jobs.asking import claim, create, post, register


async def test_the_first_registration_fixes_the_pool_and_a_later_other_one_is_refused(
    queue: httpx2.AsyncClient,
) -> None:
    await create(queue, "echo", payload={"message": "x"})
    await register(queue, "worker-1", "desktop")

    refused = await register(queue, "worker-1", "infra", status=403)

    assert refused["error_code"] == 4003
    assert "belongs to the pool 'desktop'" in refused["error_message"]
    assert await claim(queue) is None
    await post(queue, "/workers/worker-1/heartbeat")


async def test_a_worker_that_only_claims_is_of_the_pool_http_and_gets_nothing_else(queue: httpx2.AsyncClient) -> None:
    routed = await create(queue, "echo", payload={"message": "x"})
    unrouted = await create(queue, "render")

    taken = await claim(queue)

    assert taken is not None
    assert taken["id"] == unrouted["id"]
    assert await claim(queue) is None
    await register(queue, "worker-1", "infra", status=403)
    await register(queue, "worker-2", "infra")
    found = await claim(queue, "worker-2")
    assert found is not None
    assert found["id"] == routed["id"]
