"""The PostgreSQL and the RabbitMQ that everything is measured on: private, durable, and the same for everybody."""

import json
import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import asyncpg
import psutil
from tests.services.postgres import Postgres, start_postgres
from tests.services.rabbitmq import start_rabbitmq
from tests.services.rabbitmq_node import Node

DURABILITY = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers")


@dataclass(frozen=True, slots=True)
class Services:
    """Both servers, running."""

    postgres: Postgres
    rabbitmq: Node

    async def database(self) -> str:
        """Return the URL of an empty database."""
        return await self.postgres.create_database()

    def vhost(self) -> str:
        """Return the URL of an empty virtual host."""
        return self.rabbitmq.new_vhost_url()


@asynccontextmanager
async def services() -> AsyncIterator[Services]:
    """Start both; what they wrote is removed at the end."""
    postgres = await start_postgres(durable=True)
    try:
        rabbitmq = start_rabbitmq()
        try:
            yield Services(postgres, rabbitmq)
        finally:
            rabbitmq.stop()
    finally:
        postgres.stop()


async def machine(used: Services) -> dict[str, str]:
    """Return what the figures depend on: processors, versions, and how PostgreSQL keeps what it committed."""
    connection = await asyncpg.connect(used.postgres.url)
    try:
        settings = {name: await connection.fetchval(f"SHOW {name}") for name in DURABILITY}
        server = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    return {
        "processors": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgresql": server,
        "postgresql settings": json.dumps(settings),
        "chiffon": version("chiffon"),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
