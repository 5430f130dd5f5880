"""Orchestrators as processes of their own, as they are deployed."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chiffon.client import Client
from chiffon.errors import ServerUnreachable
from tests.eventually import eventually
from tests.services.ports import free_ports

START_SECONDS = 30


@dataclass
class Server:
    """An orchestrator that runs as a process."""

    process: Process
    client: Client

    async def terminate(self) -> int:
        """Stop it as a deployment does, with SIGTERM; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(START_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def server(
    broker_url: str, database_url: str, folder: Path, *, port: int = 0, open_files: tuple[int, int] | None = None
) -> AsyncIterator[Server]:
    """Run an orchestrator until the block ends or it is terminated; on a free port, unless one is given.

    `open_files`: the soft and the hard limit that it is started with.
    """
    port = port or free_ports(1)[0]
    environment = {
        **os.environ,
        "CHIFFON_BROKER_URL": broker_url,
        "CHIFFON_BROKER_IDENTITIES": "trusted",
        "CHIFFON_DATABASE_URL": database_url,
        "CHIFFON_ARTIFACTS_DIR": str(folder / "artifacts"),
    }
    limit = () if open_files is None else ("prlimit", f"--nofile={open_files[0]}:{open_files[1]}")
    with (folder / f"orchestrator-{port}.log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(*limit, sys.executable, "-m", "chiffon", "server", "--port", str(port)),
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        async with Client(f"http://127.0.0.1:{port}") as client:
            await eventually(lambda: _is_ready(process, client), timeout=START_SECONDS, every=0.1)
            yield Server(process, client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _is_ready(process: Process, client: Client) -> bool:
    if process.returncode is not None:
        raise RuntimeError(f"the orchestrator ended with {process.returncode}")
    try:
        return await client.ready()
    except ServerUnreachable:
        return False
