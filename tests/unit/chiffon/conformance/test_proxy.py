"""The proxy between the worker and the server."""

import asyncio

import httpx2
import pytest

from chiffon.conformance.proxy import Proxy


@pytest.mark.parametrize("steps", range(8))
async def test_a_proxy_that_is_given_up_while_it_opens_keeps_no_port(steps: int) -> None:
    proxy = Proxy("http://127.0.0.1:9")
    opening = asyncio.create_task(proxy.__aenter__())
    for _ in range(steps):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    if not opening.cancelled():
        await proxy.__aexit__(None, None, None)

    with pytest.raises(httpx2.TransportError):
        async with httpx2.AsyncClient(trust_env=False) as client:
            await client.get(proxy.url)


async def test_a_server_that_cannot_be_reached_is_an_answer_that_may_be_repeated() -> None:
    async with Proxy("http://127.0.0.1:9") as proxy, httpx2.AsyncClient(trust_env=False) as client:
        response = await client.post(f"{proxy.url}/api/queue/jobs/claim", json={})
        seen = [one.action for one in proxy.traffic]

    assert response.status_code == 502
    assert seen == ["claim"]
