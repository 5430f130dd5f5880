"""A queue API that does what the test says: jobs in memory, over real HTTP, as docs/reference/queue-api.md tells it.

Faults are given by the end of a path, and each is used once.
"""

import asyncio
import json
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from common.loop import Wake
from tests.factories import make_job

Body = dict[str, Any]
Answer = tuple[int, Body]


class Fault(Enum):
    """What becomes of a request. All but `BUSY`, `LATER` and `STRANGER` do what was asked."""

    LOST = auto()
    HALF = auto()
    NONSENSE = auto()
    BUSY = auto()
    LATER = auto()
    STRANGER = auto()


@dataclass
class FakeJob:
    """One job, and what was said of it."""

    type: str
    payload: Body
    id: UUID = field(default_factory=uuid4)
    trace_id: UUID = field(default_factory=uuid4)
    status: str = "queued"
    attempt: int = 0
    owner: str | None = None
    claim_id: str | None = None
    lease_until: float = 0.0
    cancelled: bool = False
    pieces: dict[tuple[int, int], Body] = field(default_factory=dict)
    progress: list[str] = field(default_factory=list)
    ends: list[Body] = field(default_factory=list)

    def shown(self) -> Body:
        job = make_job(
            id=self.id,
            type=self.type,
            payload=self.payload,
            status=self.status,
            attempt=self.attempt,
            trace_id=self.trace_id,
            request_id=self.id,
            claimed_by=self.owner,
        )
        return job.model_dump(mode="json", by_alias=True)

    def output(self, stream: str = "stdout", *, attempt: int | None = None) -> str:
        wanted = self.attempt if attempt is None else attempt
        pieces = sorted((number, piece) for (a, number), piece in self.pieces.items() if a == wanted)
        return "".join(piece["text"] for _, piece in pieces if piece["stream"] == stream)

    @property
    def end(self) -> Body | None:
        """Return what its end was said to be; the same may have been said again."""
        assert all(end == self.ends[0] for end in self.ends), self.ends
        return self.ends[0] if self.ends else None


class QueueServer:
    """Use `serving`. `requests` holds every path and body that arrived; `orders` is what workers are told.

    `far_away`: how many seconds a claim is on its way; `most_on_the_way`: how many were at a time.
    """

    def __init__(self) -> None:
        self.jobs: dict[UUID, FakeJob] = {}
        self.requests: list[tuple[str, Body]] = []
        self.beats: list[Body] = []
        self.orders: list[Body] = []
        self.renews = True
        self.far_away = 0.0
        self.most_on_the_way = 0
        self._on_the_way = 0
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._changed: set[Wake] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["QueueServer"]:
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Go away, with every connection; `start` comes back at the same address."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._connections):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def add(self, work_type: str = "echo", **payload: Any) -> FakeJob:
        job = FakeJob(work_type, payload)
        self.jobs[job.id] = job
        self._ring()
        return job

    def shell(self, script: str, **payload: Any) -> FakeJob:
        return self.add("shell_script", script=script, **payload)

    def said(self, end_of_path: str) -> list[Body]:
        return [body for path, body in self.requests if path.endswith(end_of_path)]

    def _ring(self) -> None:
        for wake in self._changed:
            wake.ring()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    length = next(
                        (int(h.split(":")[1]) for h in head.lower().split("\r\n") if h.startswith("content-l")), 0
                    )
                    body = json.loads(await reader.readexactly(length)) if length else {}
                    await self._answer(head.split()[1], body, reader, writer)
        finally:
            self._connections.discard(writer)
            writer.transport.abort()

    async def _answer(self, path: str, body: Body, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append((path, body))
        fault = next((given.popleft() for end, given in self.faults.items() if path.endswith(end) and given), None)
        extra = b""
        match fault:
            case Fault.BUSY:
                status, shown = _problem(503, 9003)
            case Fault.LATER:
                status, shown = _problem(429, 9003)
                extra = b"retry-after: 1\r\n"
            case Fault.STRANGER:
                status, shown = 404, {"message": "no such page"}
            case _:
                status, shown = await self._do(path, body, reader)
        if fault is Fault.LOST:
            raise ConnectionResetError
        content = b"<html>" if fault is Fault.NONSENSE else json.dumps(shown).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n".encode()
        writer.write(head + extra + b"\r\n" + (content[:5] if fault is Fault.HALF else content))
        await writer.drain()
        if fault is Fault.HALF:
            raise ConnectionResetError

    async def _do(self, path: str, body: Body, reader: asyncio.StreamReader) -> Answer:
        match urlsplit(path).path.removeprefix("/api/queue/").split("/"):
            case ["jobs"]:
                return 200, {"items": []}
            case ["jobs", "claim"]:
                return 200, {"job": await self._claim(body, reader)}
            case ["jobs", job_id, what] if UUID(job_id) in self.jobs:
                return self._say(self.jobs[UUID(job_id)], what, body)
            case ["workers", worker_id, "heartbeat"]:
                self.beats.append(body)
                mine = [job for job in self.jobs.values() if job.cancelled and job.owner == worker_id and not job.ends]
                cancelled = [{"jobId": str(job.id), "attempt": job.attempt} for job in mine]
                return 200, {"orders": self.orders, "cancelled": cancelled}
            case _:
                return _problem(404, 2001)

    async def _claim(self, body: Body, reader: asyncio.StreamReader) -> Body | None:
        until = time.monotonic() + body["waitSeconds"]
        gone = asyncio.create_task(reader.read(1))
        wake = Wake()
        self._changed.add(wake)
        try:
            self._on_the_way += 1
            self.most_on_the_way = max(self.most_on_the_way, self._on_the_way)
            await asyncio.wait({gone}, timeout=self.far_away)
            self._on_the_way -= 1
            while not gone.done():
                job = self._pick(body)
                if job is not None or time.monotonic() >= until:
                    return None if job is None else job.shown()
                waiting = asyncio.create_task(wake.rung())
                await asyncio.wait(
                    {gone, waiting}, timeout=until - time.monotonic(), return_when=asyncio.FIRST_COMPLETED
                )
                waiting.cancel()
            raise ConnectionResetError
        finally:
            self._changed.discard(wake)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    def _pick(self, body: Body) -> FakeJob | None:
        for job in self.jobs.values():
            if job.status == "running" and job.claim_id == body["claimId"] and self._is_live(job):
                return job
        for job in self.jobs.values():
            if job.status == "running" and not job.cancelled and not self._is_live(job):
                job.status = "queued"
        for job in self.jobs.values():
            if job.status == "queued" and job.type in body["allowedTypes"]:
                job.status, job.owner, job.claim_id = "running", body["workerId"], body["claimId"]
                job.attempt += 1
                job.lease_until = time.monotonic() + body["leaseSeconds"]
                return job
        return None

    @staticmethod
    def _is_live(job: FakeJob) -> bool:
        return job.status == "running" and time.monotonic() < job.lease_until

    def _say(self, job: FakeJob, what: str, body: Body) -> Answer:
        if what in {"complete", "fail"} and body in job.ends:
            job.ends.append(body)
            return 200, job.shown()
        if (job.owner, job.attempt) != (body["workerId"], body["attempt"]) or not self._is_live(job):
            return _problem(409, 2002)
        handlers: dict[str, Callable[[FakeJob, Body], Answer]] = {
            "heartbeat": self._renew,
            "output": self._keep,
            "progress": self._note,
        }
        return handlers.get(what, self._end)(job, body)

    def _renew(self, job: FakeJob, body: Body) -> Answer:
        if not self.renews:
            return _problem(503, 9003)
        job.lease_until = time.monotonic() + body["leaseSeconds"]
        return 200, {**job.shown(), "cancelled": job.cancelled}

    def _keep(self, job: FakeJob, body: Body) -> Answer:
        job.pieces[body["attempt"], body["number"]] = body
        return 200, {}

    def _note(self, job: FakeJob, body: Body) -> Answer:
        assert not job.ends, "a report of progress came behind the end"
        job.progress.append(body["progress"])
        return 200, job.shown()

    def _end(self, job: FakeJob, body: Body) -> Answer:
        if body.get("started") is False:
            job.status = "cancelled" if job.cancelled else "queued"
            self._ring()
        else:
            job.status = "cancelled" if job.cancelled else "succeeded" if "errorMessage" not in body else "failed"
            job.ends.append(body)
        return 200, job.shown()


def _problem(status: int, code: int) -> Answer:
    return status, {"error_code": code, "error_message": "so it was asked for"}
