"""The parts of artifacts, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from common.clock import Clock
from common.loop import Wake
from orchestrator.artifacts import queries
from orchestrator.artifacts.admission import Total
from orchestrator.artifacts.assembling import AssembleArtifacts, Tell
from orchestrator.artifacts.links import Links
from orchestrator.artifacts.pruning import PruneArtifacts
from orchestrator.artifacts.rules import Limits
from orchestrator.artifacts.service import ArtifactService
from orchestrator.artifacts.store import Store
from orchestrator.artifacts.uploads import UploadService
from orchestrator.database.pool import Pool


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What others use of artifacts. `assembling` is a duty, to be woken by `wake`."""

    service: ArtifactService
    uploads: UploadService
    links: Links
    assembling: AssembleArtifacts
    wake: Wake


@asynccontextmanager
async def open_artifacts(
    pool: Pool,
    root: Path,
    clock: Clock,
    *,
    limits: Limits,
    links_last: timedelta,
    tell: Tell,
    keep: timedelta | None = None,
) -> AsyncIterator[Artifacts]:
    """Put artifacts below a folder, which is made when something is stored.

    `tell` sends answers to agents. `keep`: how long files stay when all is over; None: for ever.
    """
    async with pool.acquire() as db:
        key = await queries.link_key(db)
    store, wake, total = Store(root), Wake(), Total(clock)
    pruning = PruneArtifacts(pool, store, clock, keep=keep)
    assembling = AssembleArtifacts(pool, store, clock, pruning=pruning, tell=tell, wake=wake)
    try:
        yield Artifacts(
            ArtifactService(pool, store, assembling, limits=limits, total=total),
            UploadService(pool, store, limits=limits, total=total),
            Links(key, clock, lasts=links_last),
            assembling,
            wake,
        )
    finally:
        store.close()
