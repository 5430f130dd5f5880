"""An orchestrator's artifacts on a real ledger and a real folder, without its loops, and agents that send pieces."""

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from common.artifacts import MOST_PIECES
from common.messages import ArtifactPiece
from common.orders import ArtifactsStored
from common.retry import RetryPolicy
from orchestrator.artifacts.assembling import AWAY_PATIENCE, LOOK_AROUND, PATIENCE
from orchestrator.artifacts.model import Artifact
from orchestrator.artifacts.parts import Artifacts, open_artifacts
from orchestrator.artifacts.rules import Limits
from orchestrator.database.pool import Pool
from orchestrator.events.model import Event, Kind
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task, make_status
from tests.fakes.clock import FakeClock
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.ledger import events_of

LIMITS = Limits(one=10_000, run=20_000, all=1_000_000)
AGEING = timedelta(minutes=10)
# A task that is to be repeated waits for nothing.
AT_ONCE = RetryPolicy(base=timedelta(0))
Told = list[tuple[UUID, ArtifactsStored]]

MAKE_RUN = """
    INSERT INTO run (run_id, request_id, trace_id, plan, digest, status, requested_by)
    VALUES ($1, $2, $3, '{}', sha256('run'), 'running', '{}')
        ON CONFLICT DO NOTHING
"""
MAKE_STEP = """
    INSERT INTO run_step (run_id, step, kind, number, task_id)
    SELECT $1, 'step', 'step', 1 + count(*), $2 FROM run_step WHERE run_id = $1
"""


@dataclass(frozen=True)
class Work:
    """A task that an agent runs."""

    task_id: UUID
    agent_id: UUID


@dataclass
class Keeping:
    """The artifacts of one orchestrator, what its agents were told, and its folder."""

    pool: Pool
    root: Path
    clock: FakeClock
    parts: Artifacts
    told: Told = field(default_factory=list)

    async def send(self, work: Work, *pieces: ArtifactPiece, attempt: int = 1) -> Told:
        """Take in pieces; return the answers that come at once."""
        messages = [
            make_status(*_ids(work), attempt=attempt, pieces=list(pieces[at : at + MOST_PIECES]))
            for at in range(0, len(pieces), MOST_PIECES)
        ]
        return await self.parts.service.store(messages)

    async def keep(self, work: Work, content: bytes, name: str = "a.log", **values: Any) -> Artifact:
        """Take in a whole file and store it; return its artifact."""
        await self.send(work, *cut(content, name, **values))
        await self.parts.assembling.run_once()
        return (await self.of(work))[name]

    async def look_around(self) -> int:
        """Do what is done after a while, of which nobody told."""
        self.clock.advance(seconds=LOOK_AROUND.total_seconds())
        return await self.parts.assembling.run_once()

    async def of(self, work: Work) -> dict[str, Artifact]:
        return {one.name: one for one in await self.parts.service.of_task(work.task_id)}

    async def pieces(self) -> int:
        """Return how many pieces wait in the ledger."""
        async with self.pool.acquire() as db:
            count: int = await db.fetchval("SELECT count(*) FROM artifact_piece")
        return count

    async def events(self, *kinds: Kind) -> list[Event]:
        wanted = kinds or (Kind.ARTIFACT_STORED, Kind.ARTIFACT_MISSING)
        return [event for event in await events_of(self.pool) if event.kind in wanted]

    async def age(self, by: timedelta) -> None:
        """Let every artifact be older than it is."""
        async with self.pool.acquire() as db:
            await db.execute("UPDATE artifact SET created_at = created_at - $1::interval", by)

    def file(self, folder: UUID, path: str) -> Path:
        return self.root / "workflow_runs" / str(folder) / path

    def blob(self, content: bytes) -> Path:
        sha256 = sha(content)
        return self.root / "blobs" / sha256[:2] / sha256


def _ids(work: Work) -> tuple[UUID, UUID]:
    return work.task_id, work.agent_id


@asynccontextmanager
async def keeping(
    pool: Pool,
    root: Path,
    *,
    limits: Limits = LIMITS,
    links_last: timedelta = timedelta(minutes=15),
    keep: timedelta | None = None,
) -> AsyncIterator[Keeping]:
    """Give the artifacts of an orchestrator."""
    clock, told = FakeClock(), Told()

    async def tell(answers: Sequence[tuple[UUID, ArtifactsStored]]) -> None:
        told.extend(answers)

    async with open_artifacts(pool, root, clock, limits=limits, links_last=links_last, tell=tell, keep=keep) as parts:
        yield Keeping(pool, root, clock, parts, told)


async def work(pool: Pool, *, run_id: UUID | None = None, **values: Any) -> Work:
    """Have an agent run a new task, which may be a step of a run."""
    new, agent_id = make_new_task(**{"max_attempts": 3, "idempotent": True, **values}), uuid4()
    if run_id is not None:
        async with pool.acquire() as db:
            await db.execute(MAKE_RUN, run_id, uuid4(), uuid4())
            await db.execute(MAKE_STEP, run_id, new.task_id)
    await TaskService(pool, ageing=AGEING).dispatch([new], by="caller")
    await lease_to(pool, new.task_id, agent_id=agent_id)
    return Work(new.task_id, agent_id)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def cut(
    content: bytes, name: str = "a.log", *, size: int = 1000, type: str = "build_log", sha256: str | None = None
) -> list[ArtifactPiece]:
    """Cut a file into pieces of a size, in their order."""
    starts = range(0, len(content), size) or [0]
    return [
        ArtifactPiece(
            name=name,
            type=type,
            sha256=sha256 or sha(content),
            size=len(content),
            offset=start,
            data=b64encode(content[start : start + size]).decode(),
        )
        for start in starts
    ]


async def forget(pool: Pool, work: Work) -> None:
    """Let a task be over for longer than anything of it can be on its way."""
    async with pool.acquire() as db:
        await db.execute(
            "UPDATE task SET finished_at = finished_at - interval '1 hour' WHERE task_id = $1", work.task_id
        )


LATER = PATIENCE + timedelta(seconds=1)
AWAY_LATER = AWAY_PATIENCE + timedelta(seconds=1)
