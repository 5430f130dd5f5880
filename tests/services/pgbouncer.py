"""PgBouncer in front of a PostgreSQL, from Debian's package, which is installed where it is missing."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from chiffon.postgres_setup import system_user
from tests.eventually import eventually
from tests.services import packages
from tests.services.ports import free_ports
from tests.services.rabbitmq_node import ServiceUnavailable

PACKAGE = "pgbouncer"


@asynccontextmanager
async def pgbouncer(url: str, *, pool_mode: str) -> AsyncIterator[str]:
    """Run one in front of the server of a URL; yield the URL of the same database through it."""
    program = await asyncio.to_thread(_program)
    [port] = free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix="chiffon-pgbouncer-"))
    folder.chmod(0o755)
    async with _session(url) as session:
        sockets = await session.fetchval("SHOW unix_socket_directories")
        server_port = await session.fetchval("SHOW port")
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\n* = host={sockets} port={server_port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {pool_mode}\nserver_login_retry = 1\n"
    )
    # Like PostgreSQL, whose socket only one user may use, it does not run as root.
    user = system_user() if os.geteuid() == 0 else None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(configuration)],
            stdout=log,
            stderr=log,
            cwd=folder,
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else (),
        )
    try:
        await eventually(lambda: _listens(port))
        yield f"postgresql://postgres@127.0.0.1:{port}{urlsplit(url).path}"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[asyncpg.Connection]:
    session = await asyncpg.connect(url)
    try:
        yield session
    finally:
        await session.close()


def _listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def _program() -> str:
    """Return the program, installed now if there is none and this may be done."""
    if packages.program(PACKAGE) is None:
        packages.install(PACKAGE)
    program = packages.program(PACKAGE)
    if program is None:
        raise ServiceUnavailable(f"These tests need PgBouncer and found none: apt-get install {PACKAGE}")
    return program
