"""A PostgreSQL primary with a synchronous standby, on ports of the loopback interface."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg

from chiffon.embedded_postgres import STOP_LIMIT, Cluster, open_cluster
from chiffon.postgres_setup import plain_environment
from chiffon.processes import Child
from tests.eventually import eventually
from tests.services.ports import free_ports

STARTED_BUT_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
START_SECONDS = 60
# Nothing else listens here; the addresses in `pg_hba.conf` that `initdb --auth=trust` writes cover replication too.
SETTINGS = ("listen_addresses=127.0.0.1", "fsync=on", "max_connections=200", "wal_level=replica")


class ReplicatedPostgres:
    """Two servers of which one follows the other; everything that they write is in one folder."""

    def __init__(self, folder: Path, cluster: Cluster, ports: tuple[int, int]) -> None:
        self._folder = folder
        self._cluster = cluster
        self._ports = ports
        self._standby = cluster.data.with_name("standby")
        self._running: list[Child] = []

    def url(self, database: str = "postgres") -> str:
        """Return the URL that names both hosts, the primary first."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"postgresql://postgres@{hosts}/{database}"

    async def start(self) -> None:
        """Start the primary, copy it, start the copy, and have the primary wait for it with every commit."""
        primary, standby = self._ports
        await self._serve(self._cluster.data, primary)
        copying = await self._run(
            "pg_basebackup",
            *("-h", "127.0.0.1", "-p", str(primary), "-U", "postgres", "-D", str(self._standby)),
            *("--checkpoint=fast", "--write-recovery-conf", "--wal-method=stream"),
        )
        assert await copying.ended == 0, copying.log.read_text()
        await self._serve(self._standby, standby)
        await self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self.execute("SELECT pg_reload_conf()")
        await eventually(self._is_synchronous, timeout=START_SECONDS)

    async def execute(self, statement: str) -> object:
        """Run a statement on the primary and return its first value."""
        return await self._ask(self._ports[0], statement)

    async def kill_primary(self) -> None:
        """Let the primary vanish without a word to the standby."""
        await self._running[0].stop(STOP_LIMIT, how=signal.SIGQUIT)

    async def promote_standby(self) -> None:
        """Make the standby the primary; return when it can write."""
        assert await self._ask(self._ports[1], "SELECT pg_promote(true, 60)")

    async def stop(self) -> None:
        for child in reversed(self._running):
            if not child.ended.done():
                await child.stop(STOP_LIMIT, how=signal.SIGQUIT)

    async def _serve(self, data: Path, port: int) -> None:
        options = (f"port={port}", f"unix_socket_directories={self._cluster.sockets}", *SETTINGS)
        words = [word for option in options for word in ("-c", option)]
        self._running.append(await self._run("postgres", "-D", str(data), *words))
        await eventually(lambda: self._answers(port), timeout=START_SECONDS)

    async def _run(self, program: str, *words: str) -> Child:
        return await Child.start(
            program,
            [str(self._cluster.programs / program), *words],
            log=self._folder / f"{program}-{len(self._running)}.log",
            environment=plain_environment(),
            user=self._cluster.user,
            when_orphaned=signal.SIGQUIT,
        )

    async def _answers(self, port: int) -> bool:
        try:
            return await self._ask(port, "SELECT 1") == 1
        except STARTED_BUT_AWAY:
            return False

    async def _is_synchronous(self) -> bool:
        return await self.execute("SELECT sync_state FROM pg_stat_replication") == "sync"

    async def _ask(self, port: int, statement: str) -> object:
        session = await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres")
        try:
            return await session.fetchval(statement)
        finally:
            await session.close()


@asynccontextmanager
async def replicated_postgres() -> AsyncIterator[ReplicatedPostgres]:
    """Run both servers."""
    folder = Path(tempfile.mkdtemp(prefix="chiffon-replicated-"))
    folder.chmod(0o711)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = await asyncio.to_thread(open_cluster, folder)
        stack.callback(cluster.remove_sockets)
        if cluster.user is not None:
            # `pg_basebackup` makes the standby's directory itself.
            shutil.chown(folder, cluster.user.uid, cluster.user.gid)
        primary, standby = free_ports(2)
        servers = ReplicatedPostgres(folder, cluster, (primary, standby))
        stack.push_async_callback(servers.stop)
        await servers.start()
        yield servers
