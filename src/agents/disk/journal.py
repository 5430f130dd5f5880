"""The agent's own record of what it started: one JSON object a line, in the order in which it happened.

`opened` names a process of the agent, `started` is written before the executor runs, `process` names each process group
of an attempt, `ended` is written when the result is safe. So whatever has no `ended` after a crash may have been left
running, and its result is owed. Auditors compare these lines with the ledger.

Lines survive the end of the process. When the host loses power the last ones may be lost: nothing of their attempts
runs on, and no later process starts what was granted to an earlier one, for a grant names the process that it is for.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self
from uuid import UUID

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from agents.disk.journal_file import JournalFile, Line
from common.messages import GrantedTask, ResultStatus

log = logging.getLogger(__name__)


class Opened(BaseModel):
    """A process of the agent begins. `session` is its name in grants, `host_boot_id` tells runs of the host apart."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    event: Literal["opened"] = "opened"
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    session: UUID
    host_boot_id: str


class Entry(BaseModel):
    """The fields of every line about an attempt. `at` is wall time. Earlier versions call the number `fence`."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    task_id: UUID
    attempt: int = Field(validation_alias=AliasChoices("attempt", "fence"))


class Started(Entry):
    """`host_boot_id` tells runs of the host apart; earlier versions read and write it by the name in the file.

    Lines of earlier versions do not say when the agent's process started, nor in which namespace its id counts.
    """

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    event: Literal["started"] = "started"
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
    """Appends at once, in the event loop: a line takes microseconds, for it goes to the system and not to the disk.

    `session` names this process; that is on disk when this returns, with the names of all files beside the journal. Use
    it as a context manager. Raises `OSError`.
    """

    def __init__(self, file: JournalFile, *, session: UUID, host_boot_id: str) -> None:
        self._file = file
        opened = Opened(session=session, host_boot_id=host_boot_id)
        file.append(Line(None, opened.model_dump_json().encode()))
        file.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def started(
        self, grant: GrantedTask, *, host_boot_id: str, agent_pid: int, agent_ticks: int = 0, pid_namespace: int = 0
    ) -> None:
        """Note that an attempt starts. Raises `OSError`: then it must not start."""
        self._append(
            Started(
                task_id=grant.work.task_id,
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
        )

    def process_started(
        self, grant: GrantedTask, *, pid: int, start_ticks: int, keeper_pid: int, keeper_ticks: int
    ) -> None:
        """Note a program and its keeper. What cannot be noted is logged: the program runs already."""
        self._note(
            ProcessStarted(
                task_id=grant.work.task_id,
                attempt=grant.attempt,
                pid=pid,
                start_ticks=start_ticks,
                keeper_pid=keeper_pid,
                keeper_ticks=keeper_ticks,
            )
        )

    def ended(self, entry: Ended) -> None:
        """Note that an attempt is over and its result safe. What is lost of this is found out again."""
        self._note(entry)

    def _note(self, entry: Entry) -> None:
        try:
            self._append(entry)
        except OSError as failure:
            log.error("journal.failed", extra={"reason": str(failure)})  # noqa: TRY400

    def _append(self, entry: Entry) -> None:
        line = Line((entry.task_id, entry.attempt), entry.model_dump_json().encode(), isinstance(entry, Ended))
        self._file.append(line)
