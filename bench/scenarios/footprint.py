"""Footprint: the memory of what is idle, how long it takes to start, and the size of the installation."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import asyncpg
from tests.services.ports import free_ports

from bench.chiffon_server import chiffon
from bench.compare import place
from bench.counting import until
from bench.programs import BENCH, OWN_PYTHON, Place, ProgramFailed, running
from bench.report import Reading
from bench.services import Services
from bench.sizes import Sizes

TABLE = "8. Footprint"
# Idle is idle: what only the start needed may be gone by then.
IDLE_SECONDS = 10
MEGABYTE = 2**20
PAUSE = 0.005
LONGEST_START = 60.0
COMMAND: tuple[str | Path, ...] = (OWN_PYTHON, "-m", "chiffon")
HELP: tuple[str | Path, ...] = (OWN_PYTHON.with_name("chiffon"), "--help")
AGENTS = "SELECT count(*) FROM agent"


async def measure(services: Services, sizes: Sizes, folder: Path) -> AsyncIterator[Reading]:
    yield Reading(TABLE, "size of the installation, without Python", _installed() / MEGABYTE, "MB")
    for _ in range(sizes.rounds):
        async with place(services, folder, "footprint") as own:
            async for reading in _one_round(own):
                yield reading


async def _one_round(own: Place) -> AsyncIterator[Reading]:
    yield Reading(TABLE, "chiffon --help", await _help(own), "s")
    async with chiffon(own) as server:
        await asyncio.sleep(IDLE_SECONDS)
        for name, part in (("orchestrator", "server"), ("agent", "agent")):
            yield Reading(TABLE, f"{name}: memory when idle", server.part(part).memory_info().rss / MEGABYTE, "MB")
        # One agent is there already; the one that is timed is the second.
        yield Reading(TABLE, "agent: from its start to its registration", await _agent(own), "s")
    yield Reading(TABLE, "orchestrator: from its start to ready", await _orchestrator(own), "s")


async def _help(own: Place) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with running(HELP, own.environment(), own.folder / "help.log") as process:
        await process.wait()
        return loop.time() - began


async def _agent(own: Place) -> float:
    flags = ["agent", "--state-dir", str(own.folder / "second-agent")]
    loop = asyncio.get_running_loop()
    db = await asyncpg.connect(own.database_url)
    try:
        began = loop.time()
        async with running([*COMMAND, *flags], _settings(own), own.folder / "second-agent.log"):
            return await until(db, AGENTS, 2, longest=LONGEST_START) - began
    finally:
        await db.close()


async def _orchestrator(own: Place) -> float:
    [port] = free_ports(1)
    loop = asyncio.get_running_loop()
    began = loop.time()
    flags: Sequence[str] = ["server", "--port", str(port)]
    async with running([*COMMAND, *flags], _settings(own), own.folder / "server.log"):
        try:
            async with asyncio.timeout(LONGEST_START):
                return await _when_ready(port) - began
        except TimeoutError:
            raise ProgramFailed(f"the orchestrator did not get ready; see {own.folder}") from None


async def _when_ready(port: int) -> float:
    while True:
        if await _is_ready(port):
            return asyncio.get_running_loop().time()
        await asyncio.sleep(PAUSE)


async def _is_ready(port: int) -> bool:
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.startswith(b"HTTP/1.1 200")
    return False


def _settings(own: Place) -> Mapping[str, str]:
    return {
        **own.environment(),
        "CHIFFON_BROKER_URL": own.amqp_url,
        "CHIFFON_DATABASE_URL": own.database_url,
        "CHIFFON_BROKER_IDENTITIES": "trusted",
        "CHIFFON_SIGNING_KEYS_DIR": str(own.folder / "up" / "keys"),
        "CHIFFON_AGENT_TRUSTED_KEYS": str(own.folder / "up" / "trusted_keys.pem"),
        "CHIFFON_LOG_LEVEL": "WARNING",
    }


def _installed() -> int:
    """Return the bytes of all packages that the runtime lock names, and of Chiffon itself."""
    lock = (BENCH.parent / "requirements.txt").read_text(encoding="utf-8")
    names = [line.partition("==")[0].partition("[")[0] for line in lock.splitlines() if "==" in line]
    own = sum(path.stat().st_size for path in (BENCH.parent / "src").rglob("*.py"))
    return own + sum(map(_size, names))


def _size(name: str) -> int:
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:  # of another platform
        return 0
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file())
