"""Requests to the queue API: an answer, a refusal that stays, or a server that cannot be reached right now.

Nothing is repeated here: who asks knows how long the answer is worth waiting for.
"""

import email.utils
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import httpx2
from pydantic import ValidationError

from agents.over_http.wire import Fields, brought, heartbeat, wanted
from common.broker.base import BrokerUnavailable
from common.errors import ChiffonError, InvalidField
from common.http_client import client_options
from common.messages import StatusUpdate, WantFile
from common.orders import FilePiece
from common.rest.base import Answer, Request
from common.rest.bodies import body_of
from common.rest.jobs import (
    ArtifactAnswer,
    ArtifactRequest,
    ClaimAnswer,
    ClaimRequest,
    CompleteRequest,
    FailRequest,
    FileAnswer,
    FileRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    OutputRequest,
    OwnerRequest,
    ProgressRequest,
    StepsAnswer,
    StepsRequest,
)
from common.rest.workers import WorkerOrders, WorkerReport

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
CONNECTIONS = 64
# Shorter than any server keeps an idle connection, so that none is used in the moment in which it is closed.
KEEP_SECONDS = 4.0
# What a request is answered with that will never be answered otherwise, when the queue API itself says so.
FINAL = frozenset({400, 403, 409, 413, 422})
NO_SUCH_JOB = 2001
INVALID = 422
NOT_FOR_AGENTS = 403
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
LONGEST_RETRY_AFTER = 60.0

# Where each report of a job goes.
REPORTS: Mapping[type[OwnerRequest], str] = MappingProxyType(
    {OutputRequest: "output", ProgressRequest: "progress", CompleteRequest: "complete", FailRequest: "fail"}
)

Model = TypeVar("Model", bound=Answer)


class ServerAway(BrokerUnavailable):
    """There is no answer, or none that decides anything.

    `may_have_arrived`: the server may have done what it was asked. `retry_after`: seconds that it asked to wait.
    """

    def __init__(self, reason: str, *, may_have_arrived: bool = True, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.may_have_arrived = may_have_arrived
        self.retry_after = retry_after


class Refused(ChiffonError):
    """The queue API says no, and repeating the request would not change that. `status` is that of HTTP."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    @property
    def is_fault(self) -> bool:
        """Whether the request itself was wrong, rather than too late."""
        return self.status in {400, 413, 422}


class Told(NamedTuple):
    """What a worker is told, and when by the server's clock."""

    orders: WorkerOrders
    at: datetime


class QueueClient:
    """Speaks for one worker. Every call raises `ServerAway` or `Refused`."""

    def __init__(self, http: httpx2.AsyncClient, worker_id: UUID, *, lease_seconds: int) -> None:
        self._http = http
        self._worker_id = str(worker_id)
        self._lease = lease_seconds

    @property
    def lease_seconds(self) -> int:
        """For how long a job is this worker's without renewing."""
        return self._lease

    async def check(self) -> None:
        """Return when the queue API answers and takes this agent's token."""
        try:
            await self._request("GET", "/jobs", params={"limit": 1})
        except Refused as refusal:
            if refusal.status != NOT_FOR_AGENTS:  # it knows this agent, which may take jobs and not list them
                raise

    async def claim(self, claim_id: UUID, *, types: Sequence[str], wait_seconds: float) -> ClaimAnswer:
        """Ask for a job. The same `claim_id` gets the same one again; without `types` nothing else."""
        asked = {
            "worker_id": self._worker_id,
            "claim_id": claim_id,
            "lease_seconds": self._lease,
            "allowed_types": types,
            "wait_seconds": wait_seconds,
        }
        response = await self._post("/jobs/claim", ClaimRequest, asked, timeout=ANSWER_SECONDS + wait_seconds)
        answer = _read(ClaimAnswer, response)
        if answer.job is not None and answer.job.attempt < 1:
            raise ServerAway("The answer was not understood: job.attempt.")
        return answer

    async def renew(self, job_id: UUID, attempt: int) -> HeartbeatAnswer:
        """Prolong a lease; `Refused` when it is over."""
        asked = {"worker_id": self._worker_id, "attempt": attempt, "lease_seconds": self._lease}
        return _read(HeartbeatAnswer, await self._post(f"/jobs/{job_id}/heartbeat", HeartbeatRequest, asked))

    async def report(self, job_id: UUID, model: type[OwnerRequest], said: Fields) -> None:
        """Send output, progress or the end of a job; the same again is answered as before."""
        await self._post_of(job_id, REPORTS[model], model, said)

    async def report_steps(self, job_id: UUID, said: Fields) -> StepsAnswer:
        """Say where inner steps of a job stand."""
        return _read(StepsAnswer, await self._post_of(job_id, "steps", StepsRequest, said))

    async def keep(self, job_id: UUID, piece: Fields) -> ArtifactAnswer:
        """Send a piece of a file that a job keeps; the answer says what became of the file."""
        return _read(ArtifactAnswer, await self._post_of(job_id, "artifacts", ArtifactRequest, piece))

    async def fetch(self, want: WantFile) -> FilePiece | None:
        """Return a piece of a file that a job brings with it; None while the file is on its way to the server."""
        answer = _read(FileAnswer, await self._post_of(want.task_id, "files", FileRequest, wanted(want)))
        try:
            return None if answer.pending else brought(answer, want)
        except ValidationError as error:
            raise _not_understood(error) from None

    async def beat(self, update: StatusUpdate) -> Told:
        """Say how this worker is, and return what it is ordered."""
        path = f"/workers/{self._worker_id}/heartbeat"
        response = await self._post(path, WorkerReport, heartbeat(update))
        return Told(_read(WorkerOrders, response), _date(response))

    async def _post_of(self, job_id: UUID, what: str, model: type[OwnerRequest], said: Fields) -> httpx2.Response:
        return await self._post(f"/jobs/{job_id}/{what}", model, {"worker_id": self._worker_id, **said})

    async def _post(
        self, path: str, model: type[Request], said: Fields, *, timeout: float = ANSWER_SECONDS
    ) -> httpx2.Response:
        try:
            body = body_of(model, **said)
        except InvalidField as error:
            raise Refused(INVALID, str(error)) from None
        return await self._request("POST", path, json=body, timeout=timeout)

    async def _request(
        self, method: str, path: str, *, timeout: float = ANSWER_SECONDS, **content: Any
    ) -> httpx2.Response:
        limits = httpx2.Timeout(timeout, connect=CONNECT_SECONDS)
        try:
            response = await self._http.request(method, f"api/queue{path}", timeout=limits, **content)
        except httpx2.HTTPError as failure:
            raise ServerAway(
                f"No answer: {type(failure).__name__} {failure}".strip(),
                may_have_arrived=not isinstance(failure, NOT_SENT),
            ) from failure
        if not response.is_success:
            raise _problem(response)
        return response


@asynccontextmanager
async def open_client(
    url: str, worker_id: UUID, *, lease_seconds: int, token: str | None = None
) -> AsyncIterator[QueueClient]:
    """Open the connections to one server; nothing is sent yet. The token says that this is that worker."""
    limits = httpx2.Limits(max_connections=CONNECTIONS, keepalive_expiry=KEEP_SECONDS)
    headers = {"accept": "application/json"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    http = httpx2.AsyncClient(limits=limits, headers=headers, **client_options(url))
    async with http:
        yield QueueClient(http, worker_id, lease_seconds=lease_seconds)


def _read(model: type[Model], response: httpx2.Response) -> Model:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise _not_understood(error) from None


def _not_understood(error: ValidationError) -> ServerAway:
    where = ".".join(map(str, error.errors()[0]["loc"])) or "body"
    return ServerAway(f"The answer was not understood: {where}.")


def _problem(response: httpx2.Response) -> ServerAway | Refused:
    code, reason = reason_of(response)
    if code is not None and (response.status_code in FINAL or code == NO_SUCH_JOB):
        return Refused(response.status_code, reason)
    return ServerAway(f"HTTP {response.status_code}: {reason}", retry_after=_retry_after(response))


def reason_of(response: httpx2.Response) -> tuple[int | None, str]:
    """Return the code and the text of an error; without a code it comes from something before the queue API."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("error_code"), int):
        return None, "this is not the answer of a queue API"
    return body["error_code"], str(body.get("error_message") or body.get("title") or "no reason given")


def _retry_after(response: httpx2.Response) -> float:
    """Return the seconds of `Retry-After`; a date is not worth reading for so short a wait."""
    given = response.headers.get("retry-after", "")
    return min(float(given), LONGEST_RETRY_AFTER) if given.isdecimal() else 0.0


def _date(response: httpx2.Response) -> datetime:
    """Return the time by the server's clock, or by this host's when the server does not say."""
    try:
        return email.utils.parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return datetime.now(UTC)
