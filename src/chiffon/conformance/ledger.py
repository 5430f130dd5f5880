"""The kit's own side of the server: it creates jobs, looks at them, cancels them, and takes them as another worker."""

from datetime import timedelta
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from chiffon.http import Http

Job = dict[str, Any]
LIVE = frozenset({"queued", "running"})
PATIENCE = timedelta(seconds=30)


class Ledger:
    """Asks the server directly, not through the proxy. Raises `ApiError` and `ServerUnreachable`."""

    def __init__(self, server: str) -> None:
        self._http = Http(server, timeout=PATIENCE)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def create(self, work_type: str, payload: Job, *, priority: int = 0, max_attempts: int = 3) -> str:
        """Create a job and return its id."""
        body = {"type": work_type, "payload": payload, "priority": priority, "maxAttempts": max_attempts}
        job = await self._http.post("/api/queue/jobs", {**body, "requestId": str(uuid4())}, repeatable=True)
        return str(job["id"])

    async def get(self, job_id: str) -> Job:
        job: Job = await self._http.get(f"/api/queue/jobs/{job_id}")
        return job

    async def cancel(self, job_id: str) -> None:
        """Cancel a job that has not ended."""
        await self._http.post(f"/api/queue/jobs/{job_id}/cancel", repeatable=True)

    async def claim(self, worker_id: str, work_type: str, *, lease: float) -> Job | None:
        """Take a job as another worker would."""
        body = {"workerId": worker_id, "leaseSeconds": lease, "allowedTypes": [work_type], "claimId": str(uuid4())}
        answer = await self._http.post("/api/queue/jobs/claim", body, repeatable=True)
        job: Job | None = answer["job"]
        return job

    async def complete(self, worker_id: str, job: Job, *, summary: str) -> None:
        body = {"workerId": worker_id, "attempt": job["attempt"], "resultSummary": summary}
        await self._http.post(f"/api/queue/jobs/{job['id']}/complete", body, repeatable=True)
