"""The servers that all workers of a test run share: started when the first test needs one, ended by the guard.

    python -m tests.services.shared rabbitmq|postgres     run one until it is killed

A server whose URL the environment names is used instead.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.services import packages, run
from tests.services.guard import SHARED
from tests.services.postgres import URL_VARIABLE as DATABASE_VARIABLE
from tests.services.postgres import Postgres, start_embedded_postgres
from tests.services.rabbitmq import URL_VARIABLE as BROKER_VARIABLE
from tests.services.rabbitmq import find_scripts, start_managed_rabbitmq
from tests.services.rabbitmq_node import ContainerNode, GivenNode, InstalledNode, Node, ServiceUnavailable

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 90


def shared_postgres() -> Postgres:
    """Return the PostgreSQL of this run."""
    url = os.environ.get(DATABASE_VARIABLE)
    return Postgres(url or json.loads(_started("postgres")), None)


def shared_rabbitmq() -> Node:
    """Return the RabbitMQ of this run, with its management API."""
    url = os.environ.get(BROKER_VARIABLE)
    return GivenNode(url) if url else _node(json.loads(_started("rabbitmq")))


def begin() -> None:
    """Have both servers started while the workers collect the tests; missing packages are installed first.

    Installing takes longer than a test may.
    """
    packages.install_missing(*(() if find_scripts() else (packages.RABBITMQ,)))
    if BROKER_VARIABLE not in os.environ:
        _begin("rabbitmq")
    if DATABASE_VARIABLE not in os.environ:
        _begin("postgres")


def _begin(name: str) -> None:
    """Start the process that runs a server, unless it was started before."""
    folder = run.root() / SHARED
    with run.alone(name):
        if (folder / f"{name}.pid").exists():
            return
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)
        # TMPDIR marks what it starts as shared. No Popen: the guard ends the process, and a dropped Popen would warn.
        environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(REPOSITORY)}
        log = (os.POSIX_SPAWN_OPEN, 1, str(folder / f"{name}.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        host = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "tests.services.shared", name],
            environment,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), log, (os.POSIX_SPAWN_DUP2, 1, 2)],
            setsid=True,
        )
        (folder / f"{name}.pid").write_text(str(host))


def _started(name: str) -> str:
    """Return what a server says of itself, once it runs."""
    _begin(name)
    says = run.root() / SHARED / f"{name}.json"
    host = int(says.with_suffix(".pid").read_text())
    deadline = time.monotonic() + START_SECONDS
    while not says.exists():
        if not _runs(host) or time.monotonic() > deadline:
            raise ServiceUnavailable(says.with_suffix(".log").read_text())
        time.sleep(0.02)
    return says.read_text()


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _node(says: dict[str, Any]) -> Node:
    if "container" in says:
        return ContainerNode(says["container"])
    return InstalledNode(Path(says["scripts"]), says["environment"], says["url"], says["management_url"])


async def _main(name: str) -> None:
    """Run a server and write what others need to reach it."""
    if name == "postgres":
        value: object = (await start_embedded_postgres(durable=False)).url
    else:
        value = start_managed_rabbitmq().says()
    folder = run.root() / SHARED
    (folder / f"{name}.new").write_text(json.dumps(value))
    (folder / f"{name}.new").rename(folder / f"{name}.json")
    signal.pause()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
