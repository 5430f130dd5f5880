"""The ways to take work, each with an orchestrator of its own on a real ledger."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from chiffon.client import Client
from chiffon.http import Http
from common.broker.base import Broker
from common.broker.connect import open_broker
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from orchestrator.settings import OrchestratorSettings
from tests.contract.hands import BrokerHand, Hand, HttpHand
from tests.integration.system.deployment import orchestrator
from tests.services.ports import free_ports

# Long enough for a busy machine to answer in, short enough to wait for.
LEASE = 4.0
MOST_TESTS = 20


class Way(ABC):
    """An orchestrator, callers, and workers that take work in this way. Every test has a kind of work of its own."""

    def __init__(
        self, broker_url: str, database_url: str, artifacts_dir: Path, *, broker: Broker | None = None
    ) -> None:
        [port] = free_ports(1)
        self._shared = SharedSettings(broker_url=broker_url)
        self._settings = OrchestratorSettings(
            database_url=database_url,
            artifacts_dir=artifacts_dir,
            port=port,
            lease_seconds=LEASE,
            probe_seconds=0.5,
            broker_identities="trusted",
            routes={f"work_{number}": f"pool{number}" for number in range(MOST_TESTS)},
        )
        self._broker = broker
        self._serving = AsyncExitStack()
        self._numbers = count()
        self._number = -1
        self.server = f"http://127.0.0.1:{port}"
        self.client = Client(self.server, timeout=timedelta(seconds=30))

    @property
    def work_type(self) -> str:
        return f"work_{self._number}"

    @property
    def pool(self) -> str:
        return f"pool{self._number}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Way"]:
        async with self.client, self._serving:
            await self._start()
            yield self

    def next_test(self) -> None:
        """Take another kind of work, of which there is none yet."""
        self._number = next(self._numbers)

    async def restart(self) -> None:
        """Stop the orchestrator in order, and start another on the same ledger."""
        await self._serving.aclose()
        await self._start()

    async def dispatch(self, *, priority: int = 3, **parameters: Any) -> UUID:
        given = await self.client.dispatch(self.work_type, parameters, priority=priority, max_attempts=3)
        return given.task_id

    async def told(self, task_id: UUID, kind: str) -> list[Mapping[str, Any]]:
        """Return what was told of a task each time when this happened to it."""
        events = (await self.client.events(task_id)).items
        return [{**event.data, "attempt": event.attempt} for event in events if event.kind == kind]

    async def how_often(self, task_id: UUID, kind: str) -> int:
        """Return how often this happened to a task."""
        return len(await self.told(task_id, kind))

    async def _start(self) -> None:
        await self._serving.enter_async_context(orchestrator(self._settings, self._shared, broker=self._broker))

    @abstractmethod
    def worker(self) -> AbstractAsyncContextManager[Hand]:
        """Open one more worker; inside it is there, and on leaving it is gone without a word about what it holds."""


class BrokerWay(Way):
    """Over a message bus."""

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Hand]:
        async with self._bus() as broker, BrokerHand.open(broker, self.pool) as hand:
            yield hand

    @asynccontextmanager
    async def _bus(self) -> AsyncIterator[Broker]:
        if self._broker is not None:
            yield self._broker
        else:
            async with open_broker(self._shared.broker_url, name="ways") as broker:
                yield broker


class MemoryWay(BrokerWay):
    """In one process."""

    def __init__(self, database_url: str, artifacts_dir: Path) -> None:
        super().__init__("memory://", database_url, artifacts_dir, broker=MemoryBroker())


class HttpWay(Way):
    """Over the queue API; the orchestrator's own bus is in its database."""

    def __init__(self, database_url: str, artifacts_dir: Path) -> None:
        super().__init__(database_url, database_url, artifacts_dir)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[Hand]:
        async with Http(self.server, timeout=timedelta(seconds=60)) as http:
            hand = HttpHand(http, self.work_type, lease=LEASE)
            await hand.register(self.pool)
            yield hand
