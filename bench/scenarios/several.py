"""Several orchestrators on one ledger: how much they do beside one, and that nothing runs twice."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import httpx2

from bench.chiffon_server import TOKEN, URL, Server, chiffon
from bench.compare import place
from bench.contenders import CHIFFON
from bench.counting import counted, until
from bench.handing_in import shares
from bench.programs import OWN_PYTHON, Place, ProgramFailed, finished, running
from bench.report import Reading
from bench.services import Services
from bench.sides import WARM_UP
from bench.sizes import Sizes

TABLE = "10. Several orchestrators"
SEVERAL = 4
STARTED = "SELECT count(*) FROM event WHERE kind = 'task.claimed'"
DONE = "SELECT count(*) FROM task WHERE status = 'completed'"
PATIENCE = 30.0


async def measure(services: Services, sizes: Sizes, folder: Path) -> AsyncIterator[Reading]:
    for _ in range(sizes.rounds):
        for orchestrators in (1, SEVERAL):
            for reading in await _one_round(services, folder, orchestrators, sizes):
                yield reading


async def _one_round(services: Services, folder: Path, orchestrators: int, sizes: Sizes) -> list[Reading]:
    """As many programs hand in tasks in both cases; with one orchestrator all of them call that one."""
    async with AsyncExitStack() as stack:
        own = await stack.enter_async_context(place(services, folder, "several"))
        db = await asyncpg.connect(own.database_url)
        stack.push_async_callback(db.close)
        first = await stack.enter_async_context(chiffon(own))
        others = [await _another(stack, own) for _ in range(orchestrators - 1)]
        urls = [first.url, *others]
        await _hand_in(own, first, urls, WARM_UP, callers=SEVERAL, bulk=False)
        await until(db, DONE, WARM_UP)
        readings = []
        for what, bulk in (("one call each", False), ("bulk", True)):
            before = await counted(db, DONE)
            began = await _hand_in(own, first, urls, sizes.tasks, callers=sizes.callers, bulk=bulk)
            rate = sizes.tasks / (await until(db, DONE, before + sizes.tasks) - began)
            readings.append(Reading(TABLE, f"{orchestrators} of them, {what}", rate, "tasks/s"))
        twice = await counted(db, STARTED) - await counted(db, DONE)
    return [*readings, Reading(TABLE, f"{orchestrators} of them, started twice", twice, "tasks")]


async def _another(stack: AsyncExitStack, own: Place) -> str:
    """Start one more orchestrator with the same ledger, broker and keys; return its URL when it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    variables = {
        "CHIFFON_BROKER_URL": own.amqp_url,
        "CHIFFON_BROKER_IDENTITIES": "trusted",
        "CHIFFON_DATABASE_URL": own.database_url,
        "CHIFFON_SIGNING_KEYS_DIR": str(own.folder / "up" / "keys"),
        "CHIFFON_LOG_LEVEL": "WARNING",
    }
    command: list[str | Path] = [OWN_PYTHON, "-m", "chiffon", "server", "--port", str(port)]
    log = own.folder / "servers.log"
    await stack.enter_async_context(running(command, {**own.environment(), **variables}, log))
    url = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient() as http:
        for _ in range(int(PATIENCE / 0.1)):
            try:
                if (await http.get(f"{url}/ready")).status_code == 200:
                    return url
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise ProgramFailed(f"an orchestrator did not get ready within {PATIENCE:.0f} s; see {log}")


async def _hand_in(own: Place, first: Server, urls: Sequence[str], count: int, *, callers: int, bulk: bool) -> float:
    """Have `SEVERAL` programs hand in tasks, in turn to each of the orchestrators; return when the first began."""

    async def program(number: int, share: int) -> float:
        known = {URL: urls[number % len(urls)], TOKEN: first.token}
        flags = ["--count", str(share), "--callers", str(callers // SEVERAL), *(["--bulk"] if bulk else [])]
        command: list[str | Path] = [OWN_PYTHON, "-m", CHIFFON.module, "produce", *flags]
        said = await finished(command, {**own.environment(), **known}, own.folder / "caller.log")
        return float(said["began"])

    return min(await asyncio.gather(*(program(number, share) for number, share in enumerate(shares(count, SEVERAL)))))
