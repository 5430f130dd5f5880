"""Chiffon as a user gets it: `chiffon up` with tokens, signed grants, events and their audit, on the given servers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.programs import OWN_PYTHON, Place, ProgramFailed, running
from chiffon.credentials import read_token

URL, TOKEN = "BENCH_CHIFFON_URL", "BENCH_CHIFFON_TOKEN"
# The tasks do nothing, so that many at the same time suit them, as they suit the peers' event loops and prefetch.
SLOTS = 256


@dataclass(frozen=True, slots=True)
class Server:
    """A Chiffon that is ready."""

    url: str
    token: str
    process: psutil.Process

    def part(self, name: str) -> psutil.Process:
        """Return the process of one part: `server` is the orchestrator, `agent` an agent."""
        return next(child for child in self.process.children() if name in child.cmdline()[1:])


@asynccontextmanager
async def chiffon(place: Place, *, agents: int = 1, settings: Mapping[str, str] | None = None) -> AsyncIterator[Server]:
    """Run `chiffon up` as long as the block runs. Raises `ProgramFailed` when it does not get ready."""
    variables = {
        "CHIFFON_BROKER_URL": place.amqp_url,
        "CHIFFON_DATABASE_URL": place.database_url,
        "CHIFFON_LOG_LEVEL": "WARNING",
        **(settings or {}),
    }
    state = place.folder / "up"
    flags = ["--agents", str(agents), "--agent-types", "infra", "--slots", str(SLOTS), "--port", "0"]
    flags += ["--state-dir", str(state)]
    command: list[str | Path] = [OWN_PYTHON, "-m", "chiffon", "up", *flags]
    log = place.folder / "up.log"
    async with running(command, {**place.environment(), **variables}, log, piped=True) as process:
        said = await _said(process, log)
        yield Server(said["API"], read_token(Path(said["Token"])), psutil.Process(process.pid))


@asynccontextmanager
async def works(place: Place) -> AsyncIterator[Mapping[str, str]]:
    """Run Chiffon with one agent, and yield what its callers need to know."""
    async with chiffon(place) as server:
        yield {URL: server.url, TOKEN: server.token}


async def _said(process: asyncio.subprocess.Process, log: Path) -> dict[str, str]:
    """Return what `up` prints when it is ready: a word and what it stands for in each line."""
    assert process.stdout is not None
    said: dict[str, str] = {}
    while "Try" not in said:
        line = (await process.stdout.readline()).decode()
        if not line:  # it gives up by itself when something takes too long
            raise ProgramFailed(f"chiffon up did not get ready; see {log}")
        word, _, meaning = line.strip().partition(" ")
        said[word] = meaning.strip()
    return said
