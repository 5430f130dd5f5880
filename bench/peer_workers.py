"""The worker process of a peer."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from bench.programs import PEERS_PYTHON, Place, finished, running


@asynccontextmanager
async def works(module: str, variables: Mapping[str, str], place: Place) -> AsyncIterator[Mapping[str, str]]:
    """Make the tables and queues that a peer needs, and run one worker process as long as the block runs."""
    environment = {**place.environment(), **variables}
    log = place.folder / "worker.log"
    await finished([PEERS_PYTHON, "-m", module, "prepare"], environment, log)
    async with running([PEERS_PYTHON, "-m", module, "worker"], environment, log):
        yield {}
