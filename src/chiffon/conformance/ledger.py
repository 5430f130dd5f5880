"""The kit's own side of the server: it creates jobs, looks at them, cancels them, and takes them as another worker.

Where the server asks who one is, the kit's token must be an administrator's: each worker enrols, and is shut out at the
end.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from chiffon.client import Client

Job = dict[str, Any]
LIVE = frozenset({"queued", "running"})
PATIENCE = timedelta(seconds=30)
# The pool of work types without a route, such as those of the kit.
POOL = "http"


@dataclass(frozen=True, slots=True)
class Hand:
    """A worker as the server knows it: by what it calls itself, and by its credential, if it was asked for one."""

    id: str
    token: str | None = field(default=None, repr=False)


class Ledger:
    """Asks the server directly, not through the proxy. Raises `ApiError` and `ServerUnreachable`."""

    def __init__(self, server: str, token: str | None = None) -> None:
        self._client = Client(server, token=token, timeout=PATIENCE)
        self._http = self._client.http
        self._enrolled: list[str] = []

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._shut_out()
        finally:
            await self._client.__aexit__(kind, error, trace)

    async def hire(self, name: str) -> Hand:
        """Return a worker of that name, with a credential where the server wants one."""
        if (await self._client.whoami()).token_id is None:
            return Hand(name)
        invited = await self._client.invite_agent(name, POOL)
        self._enrolled.append(name)
        enrolled = await self._client.enrol(invited.token)
        return Hand(str(enrolled.agent_id), enrolled.token)

    async def _shut_out(self) -> None:
        if not self._enrolled:
            return
        for one in await self._client.identities():
            if one.name in self._enrolled:
                await self._client.disable_identity(one.principal_id)

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

    async def claim(self, worker: Hand, work_type: str, *, lease: float) -> Job | None:
        """Take a job as another worker would."""
        body = {"workerId": worker.id, "leaseSeconds": lease, "allowedTypes": [work_type], "claimId": str(uuid4())}
        answer = await self._http.post("/api/queue/jobs/claim", body, repeatable=True, token=worker.token)
        job: Job | None = answer["job"]
        return job

    async def complete(self, worker: Hand, job: Job, *, summary: str) -> None:
        body = {"workerId": worker.id, "attempt": job["attempt"], "resultSummary": summary}
        await self._http.post(f"/api/queue/jobs/{job['id']}/complete", body, repeatable=True, token=worker.token)
