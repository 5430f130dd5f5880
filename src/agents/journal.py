"""The agent's own record of what it started: one JSON object a line, in the order in which it happened.

`started` is on disk before the executor runs, `process` names each process group of an attempt, `ended` is written when
the result is safe. So whatever has no `ended` after a crash may have been left running, and its result is owed.
Auditors compare these lines with the ledger.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from agents.journal_file import JournalFile, Line
from common.batching import AT_ONCE, Batcher
from common.messages import GrantedTask, ResultStatus

log = logging.getLogger(__name__)

MAX_BATCH = 1000
# How long the end of an attempt may wait for the next start, to go to the disk with it.
ENDED_WITHIN = timedelta(seconds=0.2)


class Entry(BaseModel):
    """What every line has. `at` is wall time."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    task_id: UUID
    fence: int


class Started(Entry):
    """`host_boot_id` tells runs of the host apart; earlier versions read and write it by the name in the file.

    Lines of earlier versions do not say when the agent's process started, nor in which namespace its id counts.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    event: Literal["started"] = "started"
    attempt: int
    work_type: str
    trace_id: UUID
    request_id: UUID
    host_boot_id: str = Field(validation_alias="boot_id", serialization_alias="boot_id")
    agent_pid: int
    agent_ticks: int = 0
    pid_namespace: int = 0
    claim_id: UUID | None = None


class ProcessStarted(Entry):
    """`start_ticks`: when it started by the kernel's count, so that a reused id is not mistaken for it.

    Lines of earlier versions name no keeper.
    """

    event: Literal["process"] = "process"
    pid: int
    start_ticks: int
    keeper_pid: int = 0
    keeper_ticks: int = 0


class Ended(Entry):
    event: Literal["ended"] = "ended"
    status: ResultStatus
    exit_code: int | None = None
    error_code: int | None = None
    reason: str | None = None
    killed: list[int] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Unended:
    """An attempt of an earlier life of this agent that was started and has no end."""

    started: Started
    processes: tuple[ProcessStarted, ...]


class Journal:
    """Appends, with everything that arrived together in one write. Use it as a context manager."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self._batcher: Batcher[Line, None] = Batcher(self._append, limit=MAX_BATCH)
        self._writing: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> Self:
        await self._batcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batcher.hurry()
        await asyncio.gather(*self._writing, return_exceptions=True)
        await self._batcher.__aexit__(kind, error, trace)
        self._file.close()

    async def started(
        self, grant: GrantedTask, *, host_boot_id: str, agent_pid: int, agent_ticks: int = 0, pid_namespace: int = 0
    ) -> None:
        """Return when it is on disk that the attempt starts. Raises `OSError`: then it must not start."""
        entry = Started(
            task_id=grant.work.task_id,
            fence=grant.fence,
            attempt=grant.attempt,
            work_type=grant.work.work_type,
            trace_id=grant.trace_id,
            request_id=grant.request_id,
            host_boot_id=host_boot_id,
            agent_pid=agent_pid,
            agent_ticks=agent_ticks,
            pid_namespace=pid_namespace,
            claim_id=grant.claim_id,
        )
        await self._batcher.submit(_line(entry, is_durable=True))

    def process_started(
        self, grant: GrantedTask, *, pid: int, start_ticks: int, keeper_pid: int, keeper_ticks: int
    ) -> None:
        """Note a program and its keeper. It need not survive the host, because neither do they."""
        self._note(
            ProcessStarted(
                task_id=grant.work.task_id,
                fence=grant.fence,
                pid=pid,
                start_ticks=start_ticks,
                keeper_pid=keeper_pid,
                keeper_ticks=keeper_ticks,
            )
        )

    def ended(self, entry: Ended) -> None:
        """Note soon that an attempt is over and its result safe. What is lost of this is found out again."""
        self._note(entry, within=ENDED_WITHIN)

    def _note(self, entry: Entry, *, within: timedelta = AT_ONCE) -> None:
        writing = self._batcher.hand_in(_line(entry, is_durable=False), within=within)
        self._writing.add(writing)
        writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled() and (failure := writing.exception()) is not None:
            log.error("journal.failed", extra={"reason": str(failure)})

    async def _append(self, lines: Sequence[Line]) -> Sequence[None]:
        await asyncio.to_thread(self._file.append, lines)
        return [None] * len(lines)


def _line(entry: Entry, *, is_durable: bool) -> Line:
    return Line((entry.task_id, entry.fence), entry.model_dump_json().encode(), is_durable, isinstance(entry, Ended))
