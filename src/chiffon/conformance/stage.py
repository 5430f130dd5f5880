"""What a case is played on: a server, a proxy before it, and a worker that works through the proxy."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chiffon.conformance.ledger import LIVE, Hand, Job, Ledger
from chiffon.conformance.process import WorkerProcess
from chiffon.conformance.proxy import Proxy
from chiffon.conformance.traffic import Exchange
from chiffon.conformance.verdicts import CaseOver, Part, Problem
from chiffon.errors import ApiError

LOOK = 0.02


@dataclass(frozen=True, slots=True)
class Patience:
    """For how many seconds the kit waits.

    `begin`: until a worker does what it should; starting it is part of that. `put_back`: until the server gives a job
    to others when its lease is over; that takes longer when it was just started. `leave`: after SIGTERM.
    """

    begin: float = 15.0
    put_back: float = 90.0
    leave: float = 15.0


class Stage:
    """One case's world. `process` is None when somebody else started the worker; then it cannot be killed or ended."""

    def __init__(
        self,
        ledger: Ledger,
        proxy: Proxy,
        process: WorkerProcess | None,
        *,
        work_type: str,
        lease: float,
        folder: Path,
        patience: Patience,
    ) -> None:
        self.ledger = ledger
        self.proxy = proxy
        self.work_type = work_type
        self.lease = lease
        self.patience = patience
        self.problems: list[Problem] = []
        self._process = process
        self._folder = folder
        self._created: list[str] = []

    @property
    def process(self) -> WorkerProcess:
        assert self._process is not None, "such a case is played only with a worker that the kit started"
        return self._process

    @property
    def begins_before_worker(self) -> bool:
        """Whether jobs can be created before the worker is there."""
        return self._process is not None

    async def start(self) -> None:
        """Start the worker, unless somebody else did."""
        if self._process is not None:
            await self._process.start()

    async def clear(self) -> None:
        """End what the case left behind."""
        if self._process is not None:
            await self._process.kill()
        for job_id in self._created:
            try:
                if (await self.ledger.get(job_id))["status"] in LIVE:
                    await self.ledger.cancel(job_id)
            except ApiError:
                continue  # it ended meanwhile

    # What a case does

    async def create(
        self,
        do: str = "succeed",
        *,
        priority: int = 0,
        max_attempts: int = 3,
        work_type: str | None = None,
        **more: Any,
    ) -> str:
        """Create a job for the worker and return its id."""
        text = f"{do} {len(self._created)}"
        payload = {"do": do, "text": text, **more}
        if self._process is not None:  # somebody else's may run on another host
            payload["writeTo"] = str(self._folder / "written")
        job_id = await self.ledger.create(
            work_type or self.work_type, payload, priority=priority, max_attempts=max_attempts
        )
        self._created.append(job_id)
        return job_id

    def blame(self, text: str, part: Part) -> None:
        """Note something wrong, and go on."""
        self.problems.append(Problem(text, part))

    def check(self, fine: bool, text: str, part: Part) -> None:
        """Note something wrong unless it is fine."""
        if not fine:
            self.blame(text, part)

    async def until(self, happened: Callable[[], bool], text: str, part: Part, *, within: float) -> None:
        """Wait for something to happen. Raises `CaseOver` when it does not."""
        deadline = time.monotonic() + within
        while not happened():
            if time.monotonic() > deadline:
                raise CaseOver(Problem(f"{text} within {within:g} s", part))
            await asyncio.sleep(LOOK)

    async def begun(self, job_id: str) -> Exchange:
        """Wait until the worker has been given a job, and return its claim."""
        claims = self.proxy.traffic
        await self.until(
            lambda: any(one.answered_at for one in claims.of("claim", job=job_id)),
            "it did not claim a job that waited for it",
            Part.WAIT,
            within=self.patience.begin,
        )
        return claims.of("claim", job=job_id)[-1]

    async def job(
        self, job_id: str, is_as_wanted: Callable[[Job], bool], text: str, part: Part, *, within: float
    ) -> Job:
        """Wait until a job is as wanted and return it. Raises `CaseOver` when it does not become so."""
        deadline = time.monotonic() + within
        while not is_as_wanted(job := await self.ledger.get(job_id)):
            if time.monotonic() > deadline:
                raise CaseOver(Problem(f"{text} within {within:g} s: it is {job['status']}", part))
            await asyncio.sleep(5 * LOOK)
        return job

    async def ended(
        self, job_id: str, *, part: Part = Part.END, within: float | None = None, status: str = "succeeded"
    ) -> Job:
        """Wait until a job has ended, and check how."""
        job = await self.job(
            job_id,
            lambda job: job["status"] not in LIVE,
            "a job that it should do did not end",
            part,
            within=within or self.patience.begin,
        )
        self.check(job["status"] == status, f"a job ended {job['status']}, not {status}: {job['errorMessage']}", part)
        return job

    async def taken_by(self, rival: Hand, *, within: float) -> Job:
        """Take the worker's job as another worker, once its lease is over."""
        deadline = time.monotonic() + within
        while (job := await self.ledger.claim(rival, self.work_type, lease=60)) is None:
            if time.monotonic() > deadline:
                raise CaseOver(Problem(f"the server gave its job to nobody else within {within:g} s", Part.LEASE))
            await asyncio.sleep(5 * LOOK)
        return job

    async def goes_on(self, part: Part) -> None:
        """Check that the worker takes and does another job."""
        await self.ended(await self.create(), part=part, within=self.patience.begin + 2 * self.lease)

    # What can be seen

    def said(self, *actions: str, job: str | None = None, since: float = 0.0) -> list[Exchange]:
        return self.proxy.traffic.of(*actions, job=job, since=since)

    def written(self) -> list[str]:
        """Return the lines that jobs wrote, each with the text of its job."""
        path = self._folder / "written"
        return path.read_text().splitlines() if path.exists() else []

    async def still_writes(self) -> bool:
        """Say whether any work goes on that writes."""
        before = len(self.written())
        await asyncio.sleep(0.4)
        return len(self.written()) > before
