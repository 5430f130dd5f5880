"""Approvals outlive their process: what waits still waits, and what was approved is run once, never again."""

import asyncio
import signal
import sqlite3
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chiffon.in_process import Execution, OrchestratorService, Refusal, Status
from common.errors import StartupRefused
from tests.fakes.clock import FakeClock

PATIENCE = 30.0

PROGRAM = """
import asyncio, sys
from chiffon.in_process import OrchestratorService

async def write(payload):
    print("began", payload["id"], flush=True)
    await asyncio.Event().wait()

async def main():
    async with OrchestratorService(retries=1, store=sys.argv[1]) as service:
        service.register("write", write, effect="write")
        for name in ("waits", "approved", "runs"):
            await service.submit_execution("write", {"id": name}, execution_id=name, requested_by="ada")
        await service.approve("runs", by="ben")
        await service.approve("approved", by="ben")
        await service.start_worker()
        await asyncio.Event().wait()

asyncio.run(main())
"""

# What version 0 of the store made, with an execution that waits, one that ended, and one with the event of its end.
VERSION_0 = """
    CREATE TABLE store (id TEXT NOT NULL);
    CREATE TABLE execution (
        execution_id  TEXT PRIMARY KEY,
        command       TEXT NOT NULL,
        payload       TEXT NOT NULL,
        approval_id   TEXT,
        digest        TEXT NOT NULL,
        status        TEXT NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
        attempt       INTEGER NOT NULL DEFAULT 0,
        fence         INTEGER NOT NULL DEFAULT 0,
        max_attempts  INTEGER NOT NULL CHECK (max_attempts IN (1, 2)),
        result        TEXT,
        error_message TEXT,
        error_code    INTEGER,
        created_at    TEXT NOT NULL,
        started_at    TEXT,
        finished_at   TEXT
    );
    CREATE INDEX execution_open ON execution (status, created_at) WHERE status IN ('pending', 'running');
    CREATE INDEX execution_ended ON execution (finished_at) WHERE finished_at IS NOT NULL;
    CREATE TABLE event (
        seq          INTEGER PRIMARY KEY AUTOINCREMENT,
        at           TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        kind         TEXT NOT NULL,
        data         TEXT NOT NULL
    );
    INSERT INTO store VALUES ('0123456789abcdef');
    INSERT INTO execution VALUES
        ('ended', 'write', '{"n": 1}', 'ticket', 'of version 0', 'completed', 1, 1, 1, '"done"', NULL, NULL,
         '2026-11-22T10:00:00.000000+00:00', '2026-11-22T10:00:01.000000+00:00', '2026-11-22T10:00:02.000000+00:00'),
        ('waits', 'write', '{"n": 2}', NULL, 'of version 0', 'pending', 0, 0, 1, NULL, NULL, NULL,
         '2026-11-22T10:00:00.000000+00:00', NULL, NULL);
    INSERT INTO event (seq, at, execution_id, kind, data)
        VALUES (7, '2026-11-22T10:00:02.000000+00:00', 'ended', 'execution.completed', '{}');
"""


@pytest.fixture
def written() -> list[Any]:
    return []


@pytest.fixture
def service(tmp_path: Path, written: list[Any]) -> OrchestratorService:
    """A service over the store of the test, not yet opened, that notes what it is given to write."""

    async def write(payload: Mapping[str, Any]) -> Any:
        written.append(payload)

    service = OrchestratorService(retries=1, store=tmp_path / "executions.db")
    service.register("write", write, effect="write")
    return service


async def test_after_a_kill_what_waited_waits_what_was_approved_runs_and_what_ran_is_not_repeated(
    tmp_path: Path, service: OrchestratorService, written: list[Any]
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(tmp_path / "executions.db")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    began = (await process.stdout.readline()).decode().split()[-1]
    process.send_signal(signal.SIGKILL)
    await process.wait()
    left = {"runs": "approved", "approved": "runs"}[began]

    async with service:
        await service.start_worker()
        ran = await service.outcome(began, timeout=PATIENCE)
        approved = await service.outcome(left, timeout=PATIENCE)
        [waits] = await service.awaiting_approval()
        assert written == [{"id": left}]
        await service.approve("waits", by="ben")
        ended = await service.outcome("waits", timeout=PATIENCE)

    assert (ran.status, ran.error_code, ran.attempt) == (Status.FAILED, 5002, 1)
    assert (approved.status, approved.approved_by, approved.attempt) == (Status.COMPLETED, "ben", 1)
    assert (waits.execution_id, waits.requested_by, ended.status) == ("waits", "ada", Status.COMPLETED)
    assert written == [{"id": left}, {"id": "waits"}]


async def test_what_expired_while_no_process_was_there_is_cancelled_at_the_next_start(tmp_path: Path) -> None:
    clock, store = FakeClock(), tmp_path / "executions.db"
    async with OrchestratorService(store=store, approval_wait=timedelta(hours=1), clock=clock) as service:
        await service.submit_execution("shell_script", {"argv": ["true"]}, execution_id="p")
    clock.advance(seconds=3600)

    async with OrchestratorService(store=store, clock=clock) as service:
        ended = await service.outcome("p", timeout=PATIENCE)

    assert (ended.status, ended.error_code) == (Status.CANCELLED, 3007)


async def test_a_write_that_another_gate_had_let_wait_is_refused_and_runs_once_approved(
    tmp_path: Path, service: OrchestratorService, written: list[Any]
) -> None:
    async def open_gate(_execution: Execution) -> Refusal | None:
        return None

    async with OrchestratorService(store=tmp_path / "executions.db", gate=open_gate) as before:
        before.register("write", lambda _: asyncio.sleep(0), effect="write")
        await before.submit_execution("write", {"n": 1}, execution_id="w")

    async with service:
        await service.start_worker()
        refused = await service.outcome("w", timeout=PATIENCE)
        assert (refused.status, refused.error_code, written) == (Status.FAILED, 3001, [])
        await service.approve("w", by="ben")
        ended = await service.outcome("w", timeout=PATIENCE)

    assert (ended.status, written) == (Status.COMPLETED, [{"n": 1}])


async def test_a_command_that_the_next_process_does_not_register_is_named(tmp_path: Path) -> None:
    store = tmp_path / "executions.db"
    async with OrchestratorService(store=store) as before:
        before.register("gone", lambda _: asyncio.sleep(0), effect="read")
        await before.submit_execution("gone", execution_id="g")

    async with OrchestratorService(store=store) as service:
        await service.start_worker()
        ended = await service.outcome("g", timeout=PATIENCE)

    assert (ended.status, ended.error_code) == (Status.FAILED, 5006)
    assert ended.error_message == "The command 'gone' is not registered in this process."


async def test_a_store_without_approvals_is_taken_over_whole(
    tmp_path: Path, service: OrchestratorService, written: list[Any]
) -> None:
    with sqlite3.connect(tmp_path / "executions.db") as db:
        db.executescript(VERSION_0)
    db.close()

    async with service:
        assert service.queue.store.id == "0123456789abcdef"
        ended = await service.submit_execution("write", {"n": 1}, "ticket", "ended")
        assert (ended.status, ended.result) == (Status.COMPLETED, "done")
        assert [event for event, _, _ in await service.queue.store.events("ended")] == [7]
        await service.start_worker()
        await service.outcome("waits", timeout=PATIENCE)
        await service.approve("waits", by="ben")
        assert (await service.outcome("waits", timeout=PATIENCE)).status is Status.COMPLETED

    assert written == [{"n": 2}]


async def test_a_store_of_a_later_version_is_left_alone_and_let_go(tmp_path: Path) -> None:
    store = tmp_path / "executions.db"
    with sqlite3.connect(store) as db:
        db.execute("PRAGMA user_version = 99")
    for _ in range(2):  # the second finds the lock free
        with pytest.raises(StartupRefused, match="later version"):
            async with OrchestratorService(store=store):
                pass
    assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    db.close()
