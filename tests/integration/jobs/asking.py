"""Short forms of what the tests ask of the queue API."""

from typing import Any

import httpx2

Json = dict[str, Any]


async def post(queue: httpx2.AsyncClient, path: str, /, *, status: int = 200, **body: Any) -> Json:
    """Post to a path below /api/queue, expect a status, and return the answer."""
    answer = await queue.post(f"/api/queue{path}", json=body)
    assert answer.status_code == status, answer.text
    found: Json = answer.json()
    return found


async def create(queue: httpx2.AsyncClient, type: str = "render", **body: Any) -> Json:
    return await post(queue, "/jobs", status=201, **({"type": type, "payload": {}} | body))


async def claim(queue: httpx2.AsyncClient, worker: str = "worker-1", *, lease: int = 30, **body: Any) -> Json | None:
    answer = await post(queue, "/jobs/claim", workerId=worker, leaseSeconds=lease, **body)
    job: Json | None = answer["job"]
    return job


async def register(queue: httpx2.AsyncClient, worker: str, agent_type: str, *, status: int = 200, **body: Any) -> Json:
    """Report a worker of a pool, as it does before it claims."""
    return await post(queue, f"/workers/{worker}/heartbeat", status=status, agentType=agent_type, **body)


async def get(queue: httpx2.AsyncClient, job_id: str) -> Json:
    answer = await queue.get(f"/api/queue/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found
