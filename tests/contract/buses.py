"""The message buses that the contract is proven on, and how each is disturbed."""

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import httpx2

from common.broker.base import Broker, Queue
from common.broker.memory import MemoryBroker
from common.broker.postgres import open_postgres_broker
from common.broker.rabbitmq import open_rabbitmq_broker
from common.http_client import client_options
from tests.contract.proxy import Proxy
from tests.eventually import eventually
from tests.services.postgres import Postgres
from tests.services.rabbitmq_node import Node

ROOT = Path(__file__).parents[2]
DEADLINE = timedelta(seconds=10)


class Bus(ABC):
    """Opens brokers that share their messages. `user`: as whom they log in, where the bus knows users."""

    user: str | None = None

    @abstractmethod
    def open(self, *, deadline: timedelta = DEADLINE) -> AbstractAsyncContextManager[Broker]:
        """Connect one more broker."""

    @abstractmethod
    def lost_consumer(self, queue: Queue) -> AbstractAsyncContextManager[None]:
        """Inside, a consumer holds one delivery of the queue; on leaving, it vanishes without a word."""


class MemoryBus(Bus):
    """One process: all share one broker, and a consumer can only vanish with its task."""

    def __init__(self) -> None:
        self._broker = MemoryBroker()

    @asynccontextmanager
    async def open(self, *, deadline: timedelta = DEADLINE) -> AsyncIterator[Broker]:
        yield self._broker

    @asynccontextmanager
    async def lost_consumer(self, queue: Queue) -> AsyncIterator[None]:
        holding = asyncio.Event()

        async def hold() -> None:
            async with self._broker.consume(queue.name, prefetch=1) as consumer:
                await consumer.receive()
                holding.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())
        await holding.wait()
        yield
        task.cancel()
        await asyncio.wait([task])


class RemoteBus(Bus):
    """A server that can be reached from other processes, and lost."""

    url: str

    @asynccontextmanager
    async def lost_consumer(self, queue: Queue) -> AsyncIterator[None]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.contract.holding_consumer",
            self.url,
            queue.name,
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"holding\n"
            yield
        finally:
            process.kill()
            await process.wait()

    @abstractmethod
    async def cut_connections(self) -> None:
        """End every connection to the bus from the outside; new ones are welcome at once."""

    @abstractmethod
    def outage(self) -> AbstractAsyncContextManager[None]:
        """Inside, nobody can reach the bus."""


class PostgresBus(RemoteBus):
    def __init__(self, server: Postgres, url: str) -> None:
        self.url = url
        self._server = server

    def open(self, *, deadline: timedelta = DEADLINE) -> AbstractAsyncContextManager[Broker]:
        return open_postgres_broker(self.url, name="contract", deadline=deadline)

    async def cut_connections(self) -> None:
        await self._server.terminate_sessions(self.url)

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        name = urlsplit(self.url).path.removeprefix("/")
        await self._server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            await self.cut_connections()
            yield
        finally:
            await self._server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


class AmqpBus(RemoteBus):
    """RabbitMQ behind a proxy: other tests use the same node, so only the way to it is disturbed."""

    def __init__(self, proxy: Proxy, url: str, node: Node) -> None:
        self.url = proxy.url
        self.user = urlsplit(url).username
        self._proxy = proxy
        self._node = node
        self._host = unquote(urlsplit(url).path.removeprefix("/"))

    def open(self, *, deadline: timedelta = DEADLINE) -> AbstractAsyncContextManager[Broker]:
        return open_rabbitmq_broker(self.url, name="contract", deadline=deadline)

    async def cut_connections(self) -> None:
        if self._node.management_url is None:
            self._proxy.cut()
            return
        # As `rabbitmqctl close_all_connections` does, which takes a second of processor time to start.
        async with httpx2.AsyncClient(auth=_login(self.url), **client_options(self._node.management_url)) as node:
            place = f"/api/vhosts/{quote(self._host, safe='')}/connections"

            ends = self._proxy.ends

            async def all_are_known() -> list[str]:
                names = [connection["name"] for connection in (await node.get(place)).json()]
                return names if 2 * len(names) >= len(ends) else []

            for name in await eventually(all_are_known):
                gone = await node.delete(f"/api/connections/{quote(name, safe='')}", headers={"X-Reason": "a test"})
                assert gone.status_code in {204, 404}
            await eventually(lambda: not ends & self._proxy.ends)

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self._proxy.refuse()
        try:
            yield
        finally:
            self._proxy.accept()


def _login(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    assert parts.username is not None
    assert parts.password is not None
    return parts.username, parts.password
