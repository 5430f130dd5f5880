"""Where executions are kept: memory, or a file of SQLite that one process at a time has."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from chiffon.in_process import queries, schema_queries
from chiffon.in_process.model import Claim, Execution, ExecutionConflict, ExecutionHasEnded, UnknownExecution
from chiffon.in_process.queries import Connection
from common.clock import Clock
from common.errors import ErrorCode, StartupRefused
from common.lifecycle import Change, InvalidTransition, Status, next_status

Found = TypeVar("Found")

WORKER_LOST = "worker lost: it ended while this ran"
# The event of an answer for an attempt that is over.
REFUSED_ANSWER = "execution.refused"


class Store:
    """Decides who runs what: every change is one transaction, with its event, and on disk when it returns."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="executions")
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None
        self.id = ""

    async def __aenter__(self) -> Self:
        try:
            self.id = await self._call(self._open)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def add(self, execution: Execution) -> Execution:
        """Store an execution, or return the one that has its id.

        A known execution that was refused takes another `approval_id` and waits again. Raises `ExecutionConflict` when
        the id is taken by other content.
        """

        def work(db: Connection) -> Execution:
            execution_id = execution.execution_id
            if queries.insert(db, execution):
                asked = {"command": execution.command, "digest": execution.digest, "by": execution.requested_by}
                self._note(db, execution_id, "execution.submitted", asked)
                if execution.status is Status.AWAITING_APPROVAL:
                    self._note(db, execution_id, "approval.requested", asked)
                return execution
            known = self.find(db, execution_id).execution
            if known.digest != execution.digest:
                raise ExecutionConflict(execution_id)
            if not known.refused or execution.approval_id in (None, known.approval_id):
                return known
            queries.let_go(
                db,
                execution_id,
                Status.PENDING,
                approved_by=known.approved_by,
                approval_id=execution.approval_id,
                approval_expires_at=known.approval_expires_at,
            )
            self._note(db, execution_id, "execution.resubmitted", {"approval_id": execution.approval_id})
            return self.find(db, execution_id).execution

        return await self.transaction(work)

    async def get(self, execution_id: str) -> Execution:
        """Return an execution, or raise `UnknownExecution`."""
        return await self.transaction(lambda db: self.find(db, execution_id).execution)

    async def claim_oldest(self) -> Claim | None:
        """Start an attempt of the oldest execution that waits; None when none does."""

        def work(db: Connection) -> Claim | None:
            execution_id = queries.begin_oldest(db, self._clock.now())
            if execution_id is None:
                return None
            claim = self.find(db, execution_id)
            self._note(db, execution_id, "execution.started", {"attempt": claim.execution.attempt})
            return claim

        return await self.transaction(work)

    async def is_running(self, claim: Claim) -> bool:
        """Return whether the attempt of a claim has not ended."""

        def work(db: Connection) -> bool:
            now = self.find(db, claim.execution.execution_id)
            return now.execution.status is Status.RUNNING and now.fence == claim.fence

        return await self.transaction(work)

    async def succeed(self, claim: Claim, result: str) -> bool:
        """Store what came of an attempt; False when it does not count, because that attempt is over."""
        return await self._finish(claim, Change.SUCCEED, result=result, error=(None, None))

    async def fail(self, claim: Claim, message: str, *, code: int | None, retryable: bool) -> Status | None:
        """Store that an attempt failed; return where the execution stands then, None when that attempt is over.

        An approval is for one attempt, which may have done its work: it is not repeated.
        """
        execution = claim.execution
        may_retry = retryable and execution.approved_by is None and execution.attempt < execution.max_attempts
        change = Change.RETRY if may_retry else Change.FAIL
        counted = await self._finish(claim, change, result=None, error=(message, code))
        return next_status(Status.RUNNING, change) if counted else None

    async def refuse(self, claim: Claim, message: str, *, code: int, approval_expires_at: datetime) -> bool:
        """Store that nothing of an attempt ran because it was refused; False when that attempt is over."""

        def work(db: Connection) -> bool:
            counted = queries.refuse(
                db, claim, error=(message, code), at=self._clock.now(), approval_expires_at=approval_expires_at
            )
            self._note_end(db, claim, f"execution.{Status.FAILED}" if counted else REFUSED_ANSWER, message)
            return counted

        return await self.transaction(work)

    async def cancel(self, execution_id: str, *, by: str) -> Execution:
        """Cancel an execution that has not ended; once more changes nothing. Raises `ExecutionHasEnded`."""

        def work(db: Connection) -> Execution:
            status = self.find(db, execution_id).execution.status
            if status is not Status.CANCELLED:
                try:
                    after = next_status(status, Change.CANCEL)
                except InvalidTransition:
                    raise ExecutionHasEnded(status) from None
                queries.end(db, execution_id, after, error=(f"cancelled by {by}", None), at=self._clock.now())
                self._note(db, execution_id, f"execution.{after}", {"by": by})
            return self.find(db, execution_id).execution

        return await self.transaction(work)

    async def reconcile(self) -> tuple[list[Execution], list[Execution]]:
        """Settle what an earlier process left running, which is dead: back to waiting while a retry remains.

        Returns what is put back, and what failed by that.
        """
        back, failed = list[Execution](), list[Execution]()
        for claim in await self.transaction(lambda db: queries.with_status(db, Status.RUNNING)):
            status = await self.fail(claim, WORKER_LOST, code=ErrorCode.AGENT_UNAVAILABLE, retryable=True)
            (back if status is Status.PENDING else failed).append(claim.execution)
        return back, failed

    async def with_status(self, status: Status) -> list[Execution]:
        """Return the executions that stand there, the oldest first."""
        return await self.transaction(lambda db: [claim.execution for claim in queries.with_status(db, status)])

    async def last_ended(self, limit: int) -> list[Execution]:
        """Return what ended last, the newest end first."""
        return await self.transaction(lambda db: queries.last_ended(db, limit))

    async def events(self, execution_id: str) -> list[tuple[int, str, Any]]:
        """Return (number, kind, data) of what happened to an execution, in order."""
        return await self.transaction(lambda db: queries.events(db, execution_id))

    async def transaction(self, work: Callable[[Connection], Found]) -> Found:
        """Do all of `work`, or nothing of it if it raises."""

        def run() -> Found:
            assert self._db is not None, "it is open"
            with self._db:
                return work(self._db)

        return await self._call(run)

    @staticmethod
    def find(db: Connection, execution_id: str) -> Claim:
        """Return an execution with the fence of its last attempt, or raise `UnknownExecution`."""
        found = queries.find(db, execution_id)
        if found is None:
            raise UnknownExecution(execution_id)
        return found

    async def _finish(
        self, claim: Claim, change: Change, *, result: str | None, error: tuple[str | None, int | None]
    ) -> bool:
        after = next_status(Status.RUNNING, change)

        def work(db: Connection) -> bool:
            at = self._clock.now() if after.is_final else None
            counted = queries.finish(db, claim, after, result=result, error=error, at=at)
            kind = f"execution.{'requeued' if change is Change.RETRY else after}" if counted else REFUSED_ANSWER
            self._note_end(db, claim, kind, error[0])
            return counted

        return await self.transaction(work)

    def _note(self, db: Connection, execution_id: str, kind: str, data: Mapping[str, Any]) -> None:
        queries.note(db, execution_id, kind, data, self._clock.now())

    def _note_end(self, db: Connection, claim: Claim, kind: str, error: str | None) -> None:
        self._note(db, claim.execution.execution_id, kind, {"attempt": claim.execution.attempt, "error": error})

    async def _call(self, work: Callable[[], Found]) -> Found:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def _open(self) -> str:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _take(self._path.with_suffix(self._path.suffix + ".lock"))
        self._db = sqlite3.connect(self._path or ":memory:", isolation_level="IMMEDIATE", check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self._db:
            return schema_queries.prepare(self._db, uuid4().hex)

    async def _end(self) -> None:
        await self._call(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
        if self._lock is not None:
            os.close(self._lock)


def _take(path: Path) -> int:
    """Lock the store; the kernel drops the lock with the process, however it ends."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StartupRefused(f"Another process uses the executions in {path.with_suffix('')}.") from None
    return lock
