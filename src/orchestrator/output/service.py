"""The use cases of output: store what agents send, and read it back in pages."""

from collections.abc import Sequence
from uuid import UUID

from common.messages import MAX_TAIL_BYTES, Stream, WorkResult, WorkStatus
from common.progress import on_one_line, percent_of
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.output import queries
from orchestrator.output.limit import within
from orchestrator.output.model import NewChunk, Page, StoredChunk, cut
from orchestrator.settings import STANDARD
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import Progressed, Task
from orchestrator.tasks.service import TaskNotFound

TAIL_PIECES = 32


class OutputService:
    """Stores and reads what tasks wrote: of each stream of an attempt about `max_output_bytes`."""

    def __init__(self, pool: Pool, *, max_output_bytes: int = STANDARD.max_output_bytes) -> None:
        self._pool = pool
        self._max_output = max_output_bytes

    async def store(self, statuses: Sequence[WorkStatus]) -> None:
        """Store output and progress; what is already there, or is of no attempt, changes nothing."""
        async with transaction(self._pool) as db:
            new = [new for status in statuses for new in chunks_of(status, limit=self._max_output)]
            stored = await queries.store(db, new)
            latest = {
                (said.task_id, said.attempt, said.agent_id): on_one_line(said.progress)
                for said in statuses
                if said.progress
            }
            reports = [(*attempt, text) for attempt, text in latest.items() if text]
            progressed = await tasks.set_progress(db, reports)
            await events.append(db, *map(written, stored), *map(_progressed, progressed))

    async def read(self, task_id: UUID, *, attempt: int | None, stream: Stream, offset: int, limit: int) -> Page:
        """Return a page of a task's output, of its last attempt unless another is named; raises `TaskNotFound`."""
        async with self._pool.acquire() as db:
            task = await tasks.find(db, task_id)
            if task is None:
                raise TaskNotFound(task_id)
            number = task.attempt if attempt is None else attempt
            # The total first: what is complete now cannot grow while the pieces are read.
            ended = task.status.is_final or number < task.attempt
            total, dropped = await queries.total(db, task_id, attempt=number, stream=stream)
            pieces = await queries.read(db, task_id, attempt=number, stream=stream, offset=offset, limit=limit)
        start, text = _join(pieces, offset, limit)
        end = start + len(text.encode())
        complete = ended and (end >= total if total is not None else not pieces)
        return Page(task_id, number, stream, start, end, text, complete, dropped)

    async def tail(self, task: Task) -> str:
        """Return the end of what a task wrote, at most 16 KiB."""
        if task.output or task.attempt == 0:
            return task.output
        async with self._pool.acquire() as db:
            text = await queries.tail(db, task.task_id, attempt=task.attempt, pieces=TAIL_PIECES)
        return cut(text, skip=max(0, len(text.encode()) - MAX_TAIL_BYTES), take=MAX_TAIL_BYTES)[1]


async def store_chunks(db: Connection, chunks: Sequence[NewChunk]) -> list[NewEvent]:
    """Store pieces inside somebody else's transaction; return the events that it must write."""
    return [written(stored) for stored in await queries.store(db, chunks)]


def chunks_of(status: WorkStatus, *, limit: int) -> list[NewChunk]:
    """Return the pieces of a message that are within the limit, each with the attempt that it belongs to."""
    return [NewChunk(status.task_id, status.attempt, status.agent_id, chunk) for chunk in within(status.chunks, limit)]


def chunks_of_result(result: WorkResult) -> list[NewChunk]:
    """Return the pieces that came with a result, each with the attempt that it belongs to."""
    return [NewChunk(result.task_id, result.attempt, result.agent_id, chunk) for chunk in result.chunks]


def written(stored: StoredChunk) -> NewEvent:
    """Return the event that tells of a piece; its text stays in the output, where readers of events fetch it."""
    data = {"number": stored.number, "stream": stored.stream, "offset": stored.offset, "sha256": stored.digest}
    return NewEvent.by_agent(Kind.TASK_OUTPUT, stored, stored.agent_id, stored.attempt, data)


def _progressed(report: Progressed) -> NewEvent:
    data = {"progress": report.progress, "percent": percent_of(report.progress)}
    return NewEvent.by_agent(Kind.TASK_PROGRESS, report, report.agent_id, report.attempt, data)


def _join(pieces: Sequence[tuple[int, str]], offset: int, limit: int) -> tuple[int, str]:
    """Return the text from `offset` on as far as the pieces leave no hole, and where it really starts."""
    start, parts, end = offset, list[str](), offset
    for at, text in pieces:
        if at > end:
            break
        skipped, part = cut(text, skip=end - at, take=limit - (end - start))
        if not parts:
            start = at + skipped
        parts.append(part)
        end = at + skipped + len(part.encode())
        if end - start >= limit:
            break
    return start, "".join(parts)
