"""How long a dispatch takes while strangers do what they can: `make bench-strangers`.

An orchestrator of its own on a PostgreSQL of its own. One caller dispatches, on kept connections and on new ones; first
alone, then while another process holds idle connections and half-sent bodies, opens those anew that it loses, and sends
wrong tokens. Prints the figures, and with --json FILE writes them; exits with 1 when a goal is missed.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import psutil
from tests.services.ports import free_ports
from tests.services.postgres import start_postgres

from chiffon.http import bearer
from common.open_files import raise_open_files
from common.rest.identities import TokenPurpose
from orchestrator.database.migrate import upgrade
from orchestrator.database.pool import open_pool
from orchestrator.identities.service import IdentityService
from orchestrator.identities.tokens import new_token

# A goal of dispatch's 99th percentile during the attack, as a multiple of the normal one, and of the server's growth.
MOST_TIMES = 3.0
MOST_GROWTH_MB = 64
EVERY_NEW = 10
PAUSE = 0.01
REOPENED_PER_SECOND = 100
GUESSERS = 8
MEGABYTE = 1024 * 1024

HALF_HEAD = b"GET /hea"
HALF_BODY = (
    b"POST /api/v1/enrol HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n"
) + b" " * 2000


async def attack(url: str, *, idle: int, halves: int, wrong: int, per_second: int) -> dict[str, int]:
    """Hold connections and guess tokens; return how often each status was answered to a guess."""
    raise_open_files()
    where = urlsplit(url)
    seen: dict[str, int] = {}

    async def hold(sent: bytes, number: int, of: int) -> None:
        # All are opened within a few seconds; later, lost ones slowly.
        await asyncio.sleep(3 * number / of)
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(where.hostname, where.port)
                try:
                    writer.write(sent)
                    await reader.read()
                finally:
                    writer.close()
            await asyncio.sleep((idle + halves) / REOPENED_PER_SECOND)

    async def guess() -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
            for number in range(wrong // GUESSERS):
                began = time.monotonic()
                token = new_token(TokenPurpose.API) if number % 2 else "chf_wrong"
                with suppress(httpx2.HTTPError):
                    status = str((await client.get("/api/v1/tasks", headers=bearer(token))).status_code)
                    seen[status] = seen.get(status, 0) + 1
                await asyncio.sleep(max(0.0, GUESSERS / per_second - (time.monotonic() - began)))

    holding = [asyncio.create_task(hold(HALF_HEAD, number, idle)) for number in range(idle)]
    holding += [asyncio.create_task(hold(HALF_BODY, number, halves)) for number in range(halves)]
    await asyncio.gather(*(guess() for _ in range(GUESSERS)))
    for one in holding:
        one.cancel()
    await asyncio.gather(*holding, return_exceptions=True)
    return seen


@asynccontextmanager
async def orchestrator() -> AsyncIterator[tuple[str, str, psutil.Process]]:
    """Run an orchestrator; give its URL, an operator's token and its process."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = await start_postgres(durable=True)
        stack.callback(postgres.stop)
        database_url = await postgres.create_database()
        await upgrade(database_url)
        async with open_pool(database_url, connections=3) as pool:
            token = (await IdentityService(pool).bootstrap("bench")).secret
        [port] = free_ports(1)
        environment = {
            **os.environ,
            "CHIFFON_DATABASE_URL": database_url,
            "CHIFFON_BROKER_URL": database_url,
            "CHIFFON_SIGNATURES": "off",
            "CHIFFON_LOG_LEVEL": "WARNING",
            "CHIFFON_AUTHENTICATION": "required",
        }
        log = stack.enter_context((folder / "log").open("wb"))
        command = (sys.executable, "-m", "chiffon", "server", "--port", str(port))
        server = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
                while not await _is_ready(client):
                    if server.returncode is not None:
                        raise SystemExit((folder / "log").read_text())
                    await asyncio.sleep(0.1)
            yield url, token, psutil.Process(server.pid)
        finally:
            server.terminate()
            await server.wait()


async def _is_ready(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/ready")).status_code == 200
    except httpx2.HTTPError:
        return False


async def dispatched(url: str, token: str, until: Callable[[], bool]) -> list[float]:
    """Dispatch one task after the other; return how long each took, in milliseconds."""
    times: list[float] = []

    async def send(client: httpx2.AsyncClient) -> None:
        began = time.perf_counter()
        work = {"task_id": str(uuid4()), "work_type": "echo", "parameters": {"message": "bench"}}
        answer = await client.post("/api/v1/dispatch", json=work)
        assert answer.status_code == 200, answer.text
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(PAUSE)

    async with httpx2.AsyncClient(base_url=url, headers=bearer(token), timeout=60) as kept:
        while not until():
            if len(times) % EVERY_NEW:
                await send(kept)
            else:
                async with httpx2.AsyncClient(base_url=url, headers=bearer(token), timeout=60) as new:
                    await send(new)
    return times


async def run(seconds: float, flags: list[str]) -> dict[str, Any]:
    """Measure alone and under attack; return the figures."""
    async with orchestrator() as (url, token, process):
        await dispatched(url, token, _after(seconds / 4))  # warms up
        alone = await dispatched(url, token, _after(seconds))
        memory = [process.memory_info().rss]
        command = (sys.executable, "-m", "bench.strangers", "--attack", url, *flags)
        attacker = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said = asyncio.create_task(_output(attacker))
        watching = asyncio.create_task(_watch(process, memory))
        attacked = await dispatched(url, token, said.done)
        watching.cancel()
        answers = json.loads(await said)
    normal, under = _p99(alone), _p99(attacked)
    return {
        "dispatches": {"alone": len(alone), "attacked": len(attacked)},
        "median_ms": {"alone": round(statistics.median(alone), 2), "attacked": round(statistics.median(attacked), 2)},
        "p99_ms": {"alone": round(normal, 2), "attacked": round(under, 2)},
        "p99_times": round(under / normal, 2),
        "memory_mb": {
            "before": memory[0] // MEGABYTE,
            "most": max(memory) // MEGABYTE,
            "after": memory[-1] // MEGABYTE,
        },
        "answers_to_wrong_tokens": answers,
        "reached": under <= MOST_TIMES * normal and max(memory) - memory[0] <= MOST_GROWTH_MB * MEGABYTE,
    }


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


async def _output(process: asyncio.subprocess.Process) -> str:
    out, _ = await process.communicate()
    return out.decode()


async def _watch(process: psutil.Process, memory: list[int]) -> None:
    while True:
        await asyncio.sleep(0.5)
        memory.append(process.memory_info().rss)


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="how long dispatch is measured alone")
    parser.add_argument("--idle", type=int, default=5_000, help="connections that send half a head")
    parser.add_argument("--halves", type=int, default=1_000, help="connections that send half a body")
    parser.add_argument("--wrong", type=int, default=100_000, help="wrong tokens")
    parser.add_argument("--per-second", type=int, default=1_000, help="wrong tokens a second")
    parser.add_argument("--attack", metavar="URL", help="only attack this orchestrator")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    given = parser.parse_args()
    flags = [f"--{name}={getattr(given, name.replace('-', '_'))}" for name in ("idle", "halves", "wrong", "per-second")]
    if given.attack:
        sizes = {"idle": given.idle, "halves": given.halves, "wrong": given.wrong, "per_second": given.per_second}
        print(json.dumps(asyncio.run(attack(given.attack, **sizes))))
        return
    figures = asyncio.run(run(given.seconds, flags))
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2))
    sys.exit(0 if figures["reached"] else 1)


if __name__ == "__main__":
    main()
