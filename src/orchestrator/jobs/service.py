"""The use cases of the queue API: create jobs, look at them, take them, and say what became of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from common.batching import Batcher
from common.errors import ErrorCode, InvalidField
from common.ids import new_request_id
from common.lifecycle import Status
from common.loop import Wake
from common.messages import (
    ArtifactPiece,
    Lease,
    OutputChunk,
    ResultStatus,
    StatusUpdate,
    StepReport,
    WantFile,
    WorkResult,
    WorkStatus,
)
from common.orders import ArtifactsStored, FilePiece, StepsStored
from common.rest.jobs import JobStatus
from orchestrator.artifacts.service import ArtifactService
from orchestrator.database.pages import Listing
from orchestrator.database.pool import Pool, transaction
from orchestrator.identities.model import Caller
from orchestrator.jobs import queries
from orchestrator.jobs.desk import Desk
from orchestrator.jobs.errors import JobNotFound, NotTheOwner
from orchestrator.jobs.model import Ending, Job, OwnAttempt, Taken, Told, Wanted, Worker
from orchestrator.jobs.rules import new_job, statuses_of
from orchestrator.jobs.workers import Workers
from orchestrator.leases import queries as leases
from orchestrator.leases.grants import granted
from orchestrator.leases.rules import Stale, Verdict
from orchestrator.leases.service import LeaseService
from orchestrator.output.service import OutputService
from orchestrator.policy.service import RuleWork
from orchestrator.signing.signer import Signer
from orchestrator.steps.service import StepService
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import Identity, NewTask, Task, TaskFilter
from orchestrator.tasks.service import TaskHasEnded, TaskService

log = logging.getLogger(__name__)

RESULTS_AT_ONCE = 500
# A file is put together soon after its last piece came. A worker that is not told of it then sends the file again.
SETTLING = [timedelta(milliseconds=pause) for pause in (20, 50, 100, 200, 400)]


class JobService:
    """Everything that the queue API offers. A job is a task; whoever claims it first, here or on the bus, has it."""

    def __init__(
        self,
        pool: Pool,
        *,
        dispatch: Callable[[NewTask], Awaitable[Identity]],
        give: Callable[[Sequence[Wanted]], Awaitable[Sequence[Task | None]]],
        tasks: TaskService,
        leases: LeaseService,
        output: OutputService,
        steps: StepService,
        artifacts: ArtifactService,
        workers: Workers,
        giver: Wake,
        routes: Mapping[str, str],
        rule: RuleWork,
        max_lease: timedelta,
        max_output_bytes: int,
        signer: Signer | None = None,
    ) -> None:
        self._pool = pool
        self._dispatch = dispatch
        self._tasks = tasks
        self._leases = leases
        self._output = output
        self._steps = steps
        self._artifacts = artifacts
        self._workers = workers
        self._giver = giver
        self._routes = routes
        self._rule = rule
        self._max_lease = max_lease
        self._max_output = max_output_bytes
        self._signer = signer
        self.desk = Desk(give, self._hand_back)
        self.results: Batcher[WorkResult, Verdict] = Batcher(leases.accept, limit=RESULTS_AT_ONCE)

    async def create(
        self,
        work_type: str,
        *,
        payload: Mapping[str, Any],
        precedence: int,
        affinity_key: str | None,
        max_attempts: int,
        request_id: UUID | None,
        trace_id: UUID,
        requested_by: Caller,
    ) -> tuple[Job, bool]:
        """Store a job; return it and whether it is new.

        Raises `InvalidField`, `RefusedByPolicy` and `IdempotencyConflict`.
        """
        task = new_job(
            uuid4(),
            work_type,
            request_id=request_id or new_request_id(),
            trace_id=trace_id,
            payload=payload,
            precedence=precedence,
            affinity_key=affinity_key,
            max_attempts=max_attempts,
            routes=self._routes,
            requested_by=requested_by,
            rule=self._rule,
        )
        known = await self._dispatch(task)
        return await self.get(known.task_id), known.task_id == task.task_id

    async def get(self, job_id: UUID) -> Job:
        """Return a job, or raise `JobNotFound`."""
        [job] = await self._show([await self._find(job_id)])
        return job

    async def newest(
        self,
        *,
        statuses: Collection[JobStatus] | None,
        work_type: str | None,
        before: tuple[datetime, UUID] | None,
        limit: int,
    ) -> Listing[Job]:
        """Return a page of jobs, newest first."""
        wanted = TaskFilter(statuses_of(statuses), work_type, before=before)
        async with self._pool.acquire() as db:
            page = await tasks.newest(db, wanted, limit=limit)
            whole = await tasks.get(db, [task.task_id for task in page.rows])
        jobs = await self._show([whole.get(task.task_id, task) for task in page.rows])
        return Listing(jobs, page.has_more)

    async def cancel(self, job_id: UUID, *, by: str) -> Job:
        """Cancel a job that has not ended; raises `JobNotFound`, and `NotTheOwner` when it has ended otherwise."""
        task = await self._find(job_id)
        try:
            await self._tasks.cancel(task.task_id, by=by)
        except TaskHasEnded as ended:
            raise NotTheOwner(str(ended)) from None
        self._giver.ring()
        return await self.get(job_id)

    async def claim(self, wanted: Wanted, *, wait: timedelta) -> Taken | None:
        """Return the best job for a worker, whose own it is from then on; None when there was none in time."""
        self._check_lease(wanted.lease)
        await self._workers.claims(wanted)
        task = await self.desk.claim(wanted, wait=wait)
        if task is None:
            return None
        log.info(
            "job.claimed", extra={"task_id": task.task_id, "trace_id": task.trace_id, "worker": wanted.worker.name}
        )
        # A worker names its lease by the attempt; so does what is signed for it.
        grant = granted(
            task,
            wanted.claim_id,
            attempt=task.attempt,
            lease=wanted.lease,
            max_output_bytes=self._max_output,
        )
        signature = None if self._signer is None else self._signer.sign(wanted.worker.agent_id, [grant])
        return Taken(Job(task, wanted.worker.name, self._max_output), grant, signature)

    def news_of_keys(self, trusted: Sequence[str] | None) -> Sequence[str]:
        """Return what a worker that trusts these keys must be told; see `Signer.news_for`."""
        return () if self._signer is None else self._signer.news_for(trusted)

    async def heartbeat(
        self, job_id: UUID, worker: Worker, *, attempt: int | None, lease: timedelta
    ) -> tuple[Job, bool]:
        """Have the lease run anew; return the job, and whether it was cancelled and must be stopped."""
        self._check_lease(lease)
        task, own = await self._own(job_id, worker, attempt)
        async with transaction(self._pool) as db:
            kept = await leases.renew(db, [(worker.agent_id, Lease(task_id=job_id, attempt=own.number))], lease=lease)
        if not kept:
            task, own = await self._own(job_id, worker, own.number)
            if not _is_to_stop(task, own):
                raise NotTheOwner(_not_running(task, own))
        return await self.get(job_id), not kept

    async def progress(self, job_id: UUID, worker: Worker, *, attempt: int | None, text: str) -> Job:
        """Say where a job stands. Of one that was cancelled nothing is kept: the job that is returned shows it."""
        task, own = await self._own(job_id, worker, attempt)
        if not _is_to_stop(task, own):
            if task.status is not Status.RUNNING or task.attempt != own.number:
                raise NotTheOwner(_not_running(task, own))
            await self._output.store([_status(own, progress=text)])
        return await self.get(job_id)

    async def write(self, job_id: UUID, worker: Worker, chunk: OutputChunk, *, attempt: int | None) -> None:
        """Store a piece of what the job wrote; one that is there already is no error."""
        _, own = await self._own(job_id, worker, attempt)
        await self._output.store([_status(own, chunks=[chunk])])

    async def report_steps(
        self, job_id: UUID, worker: Worker, reports: Sequence[StepReport], *, attempt: int | None
    ) -> StepsStored | None:
        """Store where inner steps stand, also of an attempt that is over; return what the worker may forget."""
        _, own = await self._own(job_id, worker, attempt)
        answers = await self._steps.store([_status(own, steps=reports)])
        return answers[0][1] if answers else None

    async def keep(
        self, job_id: UUID, worker: Worker, piece: ArtifactPiece, *, attempt: int | None
    ) -> ArtifactsStored | None:
        """Store a piece of a file that the job keeps; return what became of the file, None while that is not known."""
        _, own = await self._own(job_id, worker, attempt)
        answers = await self._artifacts.store([_status(own, pieces=[piece])])
        if answers:
            return answers[0][1]
        is_last = piece.offset + len(piece.raw) == piece.size
        return await self._settled(own, piece.name) if is_last else None

    async def _settled(self, own: OwnAttempt, name: str) -> ArtifactsStored | None:
        """Return what became of a file of which all has come, for a moment's wait: nobody tells the worker later."""
        for pause in SETTLING:
            await asyncio.sleep(pause.total_seconds())
            found = await self._artifacts.settled(own.task_id, own.number, own.agent_id)
            if name in found.names or name in found.refused:
                return found
        return None

    async def fetch(
        self, job_id: UUID, worker: Worker, path: str, *, offset: int, attempt: int | None
    ) -> FilePiece | None:
        """Return a piece of a file that the job brings with it; None while the file is on its way."""
        _, own = await self._own(job_id, worker, attempt)
        want = WantFile(
            want_id=uuid4(), agent_id=own.agent_id, task_id=job_id, attempt=own.number, path=path, offset=offset
        )
        return await self._artifacts.piece(want)

    async def end(self, job_id: UUID, worker: Worker, ending: Ending, *, attempt: int | None) -> Job:
        """Store how an attempt ended; the same again by its owner is answered as before."""
        task, own = await self._own(job_id, worker, attempt)
        verdict = await self.results.submit(_result(own, ending))
        if isinstance(verdict, Stale):
            raise NotTheOwner(f"This does not count: {verdict.reason}.")
        self._giver.ring()
        log.info("job.ended", extra={"task_id": job_id, "trace_id": task.trace_id, "status": ending.status})
        return await self.get(job_id)

    async def running_since(self, worker: Worker) -> datetime:
        """Return since when a worker that does not say so runs; see `Workers.running_since`."""
        return await self._workers.running_since(worker)

    async def pool_of(self, worker: Worker, said: str | None, labels: Mapping[str, Any]) -> str:
        """Return the pool of a worker that reports itself; see `Workers.pool_of`."""
        return await self._workers.pool_of(worker, said, labels)

    async def report(self, worker: Worker, update: StatusUpdate) -> Told:
        """Take in what a worker says of itself; see `Workers.report`."""
        return await self._workers.report(worker, update)

    async def _find(self, job_id: UUID) -> Task:
        async with self._pool.acquire() as db:
            task = await tasks.find(db, job_id)
        if task is None:
            raise JobNotFound(job_id)
        return task

    async def _show(self, found: Sequence[Task]) -> list[Job]:
        ids = {task.agent_id for task in found if task.agent_id is not None}
        names: dict[UUID, str] = {}
        if ids:
            async with self._pool.acquire() as db:
                names = await queries.names(db, ids)

        def name(agent_id: UUID | None) -> str | None:
            return None if agent_id is None else names.get(agent_id, str(agent_id))

        return [Job(task, name(task.agent_id), self._max_output) for task in found]

    async def _own(self, job_id: UUID, worker: Worker, attempt: int | None) -> tuple[Task, OwnAttempt]:
        """Return a job and the attempt of it that a worker names; raises `JobNotFound` and `NotTheOwner`."""
        task = await self._find(job_id)
        async with self._pool.acquire() as db:
            own = await queries.attempt(db, job_id, task.attempt if attempt is None else attempt)
        if own is None or own.agent_id != worker.agent_id:
            raise NotTheOwner(
                f"Attempt {attempt or task.attempt} of job {job_id} is not that of worker {worker.name!r}."
            )
        return task, own

    def _check_lease(self, lease: timedelta) -> None:
        if lease > self._max_lease:
            raise InvalidField("leaseSeconds", f"must be at most {self._max_lease.total_seconds():.0f}")

    async def _hand_back(self, wanted: Wanted, task: Task) -> None:
        """Give back what a worker got that had left before it heard of it; the attempt does not count."""
        own = OwnAttempt(task.task_id, task.attempt, wanted.worker.agent_id, None, stop_reported=False)
        ending = Ending(
            ResultStatus.FAILED,
            error_message="The worker left before it was given the job.",
            error_code=ErrorCode.AGENT_UNAVAILABLE,
            retryable=True,
            started=False,
        )
        try:
            await self.results.submit(_result(own, ending))
            self._giver.ring()
        except Exception:  # its lease ends by itself
            log.exception("job.not_handed_back", extra={"task_id": task.task_id})


def _is_to_stop(task: Task, own: OwnAttempt) -> bool:
    """Whether this attempt was cancelled while it ran, and its worker has yet to say that it has stopped."""
    return task.status is Status.CANCELLED and own.outcome == "cancelled" and not own.stop_reported


def _not_running(task: Task, own: OwnAttempt) -> str:
    return f"Attempt {own.number} does not run any longer: {own.outcome or task.status}."


def _status(
    own: OwnAttempt,
    *,
    progress: str = "",
    chunks: Sequence[OutputChunk] = (),
    steps: Sequence[StepReport] = (),
    pieces: Sequence[ArtifactPiece] = (),
) -> WorkStatus:
    return WorkStatus(
        task_id=own.task_id,
        agent_id=own.agent_id,
        attempt=own.number,
        progress=progress,
        chunks=list(chunks),
        steps=list(steps),
        pieces=list(pieces),
    )


def _result(own: OwnAttempt, ending: Ending) -> WorkResult:
    return WorkResult(
        task_id=own.task_id,
        status=ending.status,
        output=ending.summary,
        error_message=ending.error_message,
        error_code=ending.error_code,
        exit_code=ending.exit_code,
        duration_ms=ending.duration_ms or 0,
        agent_id=own.agent_id,
        attempt=own.number,
        retryable=ending.retryable,
        started=ending.started,
        output_bytes=dict(ending.output_bytes or {}),
        output_dropped=dict(ending.output_dropped or {}),
        artifacts_path=ending.artifacts_path,
        result=ending.result,
    )
