"""Where executions are kept: memory, or a file of SQLite that one process at a time has."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from chiffon.in_process import queries
from chiffon.in_process.model import Claim, Execution, ExecutionConflict, UnknownExecution
from common.errors import ErrorCode, StartupRefused
from common.lifecycle import Change, Status, next_status

Found = TypeVar("Found")

WORKER_LOST = "worker lost: it ended while this ran"


class Store:
    """Decides who runs what: every change is one transaction, with its event, and on disk when it returns."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="executions")
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None
        self.id = ""

    async def __aenter__(self) -> Self:
        self.id = await self._call(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._call(self._close)
        self._thread.shutdown()

    async def add(self, execution: Execution, digest: str) -> tuple[Execution, bool]:
        """Store an execution, or return the one that has its id, and whether it is new.

        Raises `ExecutionConflict` when the id is taken by other content.
        """

        def work(db: sqlite3.Connection) -> tuple[Execution, bool]:
            is_new = queries.insert(db, execution, digest)
            if is_new:
                queries.note(db, execution.execution_id, "execution.submitted", {"command": execution.command}, _now())
            known, known_digest, _ = self._get(db, execution.execution_id)
            if known_digest != digest:
                raise ExecutionConflict(execution.execution_id)
            return known, is_new

        return await self._transaction(work)

    async def get(self, execution_id: str) -> Execution:
        """Return an execution, or raise `UnknownExecution`."""
        return await self._transaction(lambda db: self._get(db, execution_id)[0])

    async def claim(self, execution_id: str) -> Claim | None:
        """Start an attempt; None when the execution does not wait (any longer)."""

        def work(db: sqlite3.Connection) -> Claim | None:
            if not queries.begin(db, execution_id, _now()):
                return None
            execution, _, fence = self._get(db, execution_id)
            queries.note(db, execution_id, "execution.started", {"attempt": execution.attempt}, _now())
            return Claim(execution, fence)

        return await self._transaction(work)

    async def succeed(self, claim: Claim, result: str) -> bool:
        """Store what came of an attempt; False when it does not count, because that attempt is over."""
        return await self._end(claim, Status.RUNNING, Change.SUCCEED, result=result, error=(None, None))

    async def fail(self, claim: Claim, message: str, *, code: int | None, retryable: bool) -> Status | None:
        """Store that an attempt failed; return where the execution stands then, None when that attempt is over."""
        may_retry = retryable and claim.execution.attempt < claim.execution.max_attempts
        change = Change.RETRY if may_retry else Change.FAIL
        counted = await self._end(claim, Status.RUNNING, change, result=None, error=(message, code))
        return next_status(Status.RUNNING, change) if counted else None

    async def reconcile(self) -> tuple[list[Execution], list[Execution]]:
        """Settle what an earlier process left running, which is dead: back to waiting while a retry remains.

        Returns what is put back, and what failed by that.
        """
        back, failed = list[Execution](), list[Execution]()
        for execution, fence in await self._transaction(lambda db: queries.with_status(db, Status.RUNNING)):
            status = await self.fail(
                Claim(execution, fence), WORKER_LOST, code=ErrorCode.AGENT_UNAVAILABLE, retryable=True
            )
            (back if status is Status.PENDING else failed).append(execution)
        return back, failed

    async def waiting(self) -> list[Execution]:
        """Return what waits, the oldest first."""
        return await self._transaction(lambda db: [one for one, _ in queries.with_status(db, Status.PENDING)])

    async def running(self) -> list[Execution]:
        """Return what runs, the oldest first."""
        return await self._transaction(lambda db: [one for one, _ in queries.with_status(db, Status.RUNNING)])

    async def last_ended(self, limit: int) -> list[Execution]:
        """Return what ended last, the newest end first."""
        return await self._transaction(lambda db: queries.last_ended(db, limit))

    async def events(self, execution_id: str) -> list[tuple[int, str, Any]]:
        """Return (number, kind, data) of what happened to an execution, in order."""
        return await self._transaction(lambda db: queries.events(db, execution_id))

    async def _end(
        self, claim: Claim, status: Status, change: Change, *, result: str | None, error: tuple[str | None, int | None]
    ) -> bool:
        execution_id, after = claim.execution.execution_id, next_status(status, change)
        at = _now() if after.is_final else None

        def work(db: sqlite3.Connection) -> bool:
            counted = queries.finish(db, execution_id, claim.fence, after, result=result, error=error, at=at)
            kind = f"execution.{'requeued' if change is Change.RETRY else after}" if counted else "execution.refused"
            queries.note(db, execution_id, kind, {"attempt": claim.execution.attempt, "error": error[0]}, _now())
            return counted

        return await self._transaction(work)

    async def _transaction(self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        def run() -> Found:
            assert self._db is not None, "it is open"
            with self._db:
                return work(self._db)

        return await self._call(run)

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
            return queries.prepare(self._db, uuid4().hex)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
        if self._lock is not None:
            os.close(self._lock)

    @staticmethod
    def _get(db: sqlite3.Connection, execution_id: str) -> tuple[Execution, str, int]:
        found = queries.find(db, execution_id)
        if found is None:
            raise UnknownExecution(execution_id)
        return found


def _take(path: Path) -> int:
    """Lock the store; the kernel drops the lock with the process, however it ends."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StartupRefused(f"Another process uses the executions in {path.with_suffix('')}.") from None
    return lock


def _now() -> datetime:
    return datetime.now(UTC)
