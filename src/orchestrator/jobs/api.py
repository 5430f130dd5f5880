"""The queue API: each endpoint translates a request into a call of the service, and its answer back."""

import asyncio
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, Path, Query, Request, Response
from pydantic import AfterValidator

from common.json_rules import check_line
from common.messages import ArtifactPiece, OutputChunk, Resources, ResultStatus, StatusUpdate, StepReport
from common.rest.jobs import (
    LONGEST_NAME,
    ArtifactAnswer,
    ArtifactRequest,
    ClaimAnswer,
    ClaimRequest,
    CompleteRequest,
    EndRequest,
    FailRequest,
    FileAnswer,
    FileRequest,
    HeartbeatAnswer,
    HeartbeatRequest,
    Job,
    JobPage,
    JobRequest,
    JobStatus,
    OutputRequest,
    ProgressRequest,
    StepsAnswer,
    StepsRequest,
)
from common.rest.workers import WorkerOrders, WorkerReport
from common.work import AnyWorkType
from orchestrator.http.context import trace_of
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.pagination import decode_cursor, encode_cursor
from orchestrator.http.routes import Router
from orchestrator.http.strict import Digits
from orchestrator.identities.access import READ, MayDispatch, MayWork
from orchestrator.identities.model import Caller
from orchestrator.jobs import answers
from orchestrator.jobs.model import Ending, Taken, Wanted, Worker
from orchestrator.jobs.rules import worker_of
from orchestrator.jobs.service import JobService

Responses = dict[int | str, dict[str, Any]]

NOT_FOUND: Responses = {404: {"content": ERROR_CONTENT, "description": "There is no such job (2001)."}}
LOST: Responses = {409: {"content": ERROR_CONTENT, "description": "The job is not the worker's, or has ended (2005)."}}
CONFLICT: Responses = {409: {"content": ERROR_CONTENT, "description": "The id is taken by other content (1003)."}}
PROBLEMS: Responses = {
    422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
    500: {"content": ERROR_CONTENT},
    503: {"content": ERROR_CONTENT},
}

router = Router(prefix="/api/queue", tags=["queue"], responses=PROBLEMS)


async def get_jobs(request: Request) -> JobService:
    """Return the service of the running app."""
    service: JobService = request.app.state.jobs
    return service


Jobs = Annotated[JobService, Depends(get_jobs)]
WorkerName = Annotated[str, Path(min_length=1, max_length=LONGEST_NAME), AfterValidator(check_line)]


@router.post(
    "/jobs",
    status_code=HTTPStatus.CREATED,
    summary="Create a job",
    responses={200: {"model": Job, "description": "It was created before."}, **CONFLICT},
)
async def create_job(work: JobRequest, request: Request, response: Response, jobs: Jobs, caller: MayDispatch) -> Job:
    """Store a job. With a `requestId` it is safe to repeat: the same again is the same job."""
    job, is_new = await jobs.create(
        work.type,
        payload=work.payload,
        precedence=work.priority,
        affinity_key=work.affinity_key,
        max_attempts=work.max_attempts,
        request_id=work.request_id,
        trace_id=trace_of(request.scope),
        requested_by=caller,
    )
    if not is_new:
        response.status_code = HTTPStatus.OK
    return answers.job(job)


@router.get("/jobs", dependencies=[READ], summary="List jobs, newest first")
async def list_jobs(
    jobs: Jobs,
    status: Annotated[
        list[JobStatus] | None, Query(description="Only jobs that stand there; repeat it for more.")
    ] = None,
    type: Annotated[AnyWorkType | None, Query(description="Only jobs of this type.")] = None,
    limit: Annotated[Digits, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`nextCursor` of the page before.")] = None,
) -> JobPage:
    """Return jobs and tasks alike: they are the same.

    A page of large jobs ends before the limit: go on with its `nextCursor`.
    """
    before = None if cursor is None else decode_cursor(cursor)
    page = await jobs.newest(statuses=status, work_type=type, before=before, limit=limit)
    last = page.rows[-1].task if page.has_more else None
    return JobPage(
        items=[answers.job(job) for job in page.rows],
        next_cursor=None if last is None else encode_cursor(last.created_at, last.task_id),
    )


@router.post("/jobs/claim", summary="Take the best job")
async def claim_job(asked: ClaimRequest, request: Request, jobs: Jobs, caller: MayWork) -> ClaimAnswer:
    """Return the best free job of the worker's pool, which is its own until its lease ends; null when there is none.

    With `waitSeconds` the answer waits for one.
    """
    wanted = Wanted(
        _own(caller, asked.worker_id),
        asked.claim_id or uuid4(),
        repeatable=asked.claim_id is not None,
        lease=timedelta(seconds=asked.lease_seconds),
        types=None if asked.allowed_types is None else frozenset(asked.allowed_types),
        capabilities=asked.worker_capabilities,
    )
    return answers.claimed(
        await _while_connected(request, jobs.claim(wanted, wait=timedelta(seconds=asked.wait_seconds)))
    )


async def _while_connected(request: Request, claim: Any) -> Taken | None:
    """Wait for a claim as long as somebody waits for its answer."""
    claiming: asyncio.Task[Taken | None] = asyncio.ensure_future(claim)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({claiming, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await claiming if claiming.done() else None
    finally:
        claiming.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.get("/jobs/{job_id}", dependencies=[READ], summary="Where a job stands", responses={**NOT_FOUND})
async def get_job(job_id: UUID, jobs: Jobs) -> Job:
    """Return a job."""
    return answers.job(await jobs.get(job_id))


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job", responses={**NOT_FOUND, **LOST})
async def cancel_job(job_id: UUID, jobs: Jobs, caller: MayDispatch) -> Job:
    """Cancel a job that has not ended. Its worker hears of it at its next heartbeat."""
    return answers.job(await jobs.cancel(job_id, by=caller.name))


@router.post("/jobs/{job_id}/heartbeat", summary="Keep a job", responses={**NOT_FOUND, **LOST})
async def heartbeat_job(job_id: UUID, beat: HeartbeatRequest, jobs: Jobs, caller: MayWork) -> HeartbeatAnswer:
    """Have the lease run anew. `cancelled` says that the job is to be stopped."""
    lease = timedelta(seconds=beat.lease_seconds)
    job, cancelled = await jobs.heartbeat(job_id, _own(caller, beat.worker_id), attempt=beat.attempt, lease=lease)
    return HeartbeatAnswer.model_construct(**dict(answers.job(job)), cancelled=cancelled)


@router.post("/jobs/{job_id}/progress", summary="Say where a job stands", responses={**NOT_FOUND, **LOST})
async def report_progress(job_id: UUID, said: ProgressRequest, jobs: Jobs, caller: MayWork) -> Job:
    """Say where a job stands, for those who watch it."""
    job = await jobs.progress(job_id, _own(caller, said.worker_id), attempt=said.attempt, text=said.progress)
    return answers.job(job)


@router.post("/jobs/{job_id}/output", summary="Send output", responses={**NOT_FOUND, **LOST})
async def send_output(job_id: UUID, piece: OutputRequest, jobs: Jobs, caller: MayWork) -> dict[str, bool]:
    """Store a piece of what the job wrote; one that is there already is no error."""
    chunk = OutputChunk(number=piece.number, stream=piece.stream, offset=piece.offset, text=piece.text)
    await jobs.write(job_id, _own(caller, piece.worker_id), chunk, attempt=piece.attempt)
    return {"stored": True}


@router.post("/jobs/{job_id}/steps", summary="Say how its inner steps stand", responses={**NOT_FOUND, **LOST})
async def report_steps(job_id: UUID, said: StepsRequest, jobs: Jobs, caller: MayWork) -> StepsAnswer:
    """Say where inner steps of a job stand, also when its lease is over; what is known already changes nothing."""
    reports = [StepReport(**dict(step)) for step in said.steps]
    stored = await jobs.report_steps(job_id, _own(caller, said.worker_id), reports, attempt=said.attempt)
    return StepsAnswer(through=None if stored is None else stored.through)


@router.post("/jobs/{job_id}/artifacts", summary="Keep a file", responses={**NOT_FOUND, **LOST})
async def keep_artifact(job_id: UUID, piece: ArtifactRequest, jobs: Jobs, caller: MayWork) -> ArtifactAnswer:
    """Store a piece of a file that the job keeps, also when its lease is over; one that is there is no error.

    The file is stored when all its pieces have come and have the digest that they name.
    """
    kept = ArtifactPiece(
        name=piece.name, type=piece.type, sha256=piece.sha256, size=piece.size, offset=piece.offset, data=piece.data
    )
    stored = await jobs.keep(job_id, _own(caller, piece.worker_id), kept, attempt=piece.attempt)
    return answers.artifact(piece.name, stored)


@router.post("/jobs/{job_id}/files", summary="Get a file", responses={**NOT_FOUND, **LOST})
async def fetch_file(job_id: UUID, wanted: FileRequest, jobs: Jobs, caller: MayWork) -> FileAnswer:
    """Return a piece of a file that the job brings with it, of at most 131072 bytes."""
    worker = _own(caller, wanted.worker_id)
    piece = await jobs.fetch(job_id, worker, wanted.path, offset=wanted.offset, attempt=wanted.attempt)
    return answers.file(piece)


@router.post("/jobs/{job_id}/complete", summary="End a job well", responses={**NOT_FOUND, **LOST})
async def complete_job(job_id: UUID, end: CompleteRequest, jobs: Jobs, caller: MayWork) -> Job:
    """Say that a job is done. The same again is answered as before, and changes nothing."""
    ending = Ending(ResultStatus.COMPLETED, **_common(end))
    return answers.job(await jobs.end(job_id, _own(caller, end.worker_id), ending, attempt=end.attempt))


@router.post("/jobs/{job_id}/fail", summary="End an attempt badly", responses={**NOT_FOUND, **LOST})
async def fail_job(job_id: UUID, end: FailRequest, jobs: Jobs, caller: MayWork) -> Job:
    """Say that an attempt failed, was stopped, or was not begun; the job is queued again when it may be retried."""
    ending = Ending(
        ResultStatus.CANCELLED if end.cancelled else ResultStatus.FAILED,
        error_message=end.error_message,
        error_code=end.error_code,
        retryable=end.retryable,
        started=end.started,
        **_common(end),
    )
    return answers.job(await jobs.end(job_id, _own(caller, end.worker_id), ending, attempt=end.attempt))


def _own(caller: Caller, name: str) -> Worker:
    """Return the worker of that name, which must be the caller: an agent speaks for itself only."""
    worker = worker_of(name)
    caller.require_agent(worker.agent_id)
    return worker


def _common(end: EndRequest) -> dict[str, Any]:
    return {
        "summary": end.result_summary or "",
        "artifacts_path": end.artifacts_path,
        "exit_code": end.exit_code,
        "result": end.result,
        "duration_ms": end.duration_ms,
        "output_bytes": end.output_bytes,
        "output_dropped": end.output_dropped,
    }


@router.post("/workers/{worker_id}/heartbeat", summary="Say how a worker is")
async def heartbeat_worker(worker_id: WorkerName, said: WorkerReport, jobs: Jobs, caller: MayWork) -> WorkerOrders:
    """Say who a worker is and what it does; the answer says what people ordered, and which of its jobs to stop."""
    worker = _own(caller, worker_id)
    update = StatusUpdate(
        agent_id=worker.agent_id,
        agent_type=await jobs.pool_of(worker, said.agent_type, said.labels),
        status=said.status,
        hostname=said.hostname or worker_id,
        version=said.version,
        work_types=list(said.work_types),
        slots=said.slots,
        current_tasks=said.current_jobs,
        resources=Resources(**said.resources.model_dump()),
        started_at=said.started_at or await jobs.running_since(worker),
        labels=said.labels,
        sent_at=said.sent_at,
        boot_id=said.boot_id,
        schemas=said.schemas,
    )
    told = await jobs.report(worker, update)
    return answers.orders(told, keys=jobs.news_of_keys(said.trusted_keys))
