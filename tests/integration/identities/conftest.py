"""An orchestrator that asks everybody who they are, on a real ledger, with a broker in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from chiffon.http import bearer
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from common.http_client import client_options
from common.rest.identities import Permission, PrincipalKind, Role
from orchestrator.database.pool import Pool
from orchestrator.identities.service import IdentityService, Issued
from orchestrator.main import serve
from orchestrator.settings import OrchestratorSettings
from tests.factories import OWN_TOKEN
from tests.services.ports import free_ports

Issue = Callable[..., Any]


@asynccontextmanager
async def guarded(ledger_url: str, **settings: Any) -> AsyncIterator[str]:
    """Run an orchestrator and give its URL."""
    given = OrchestratorSettings(
        **{"database_url": ledger_url, "port": free_ports(1)[0], "authentication": "required", **settings}
    )
    started, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(
        serve(given, SharedSettings(broker_url="memory://"), broker=MemoryBroker(), started=started, stop=stop)
    )
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    yield f"http://127.0.0.1:{given.port}"
    stop.set()
    await running


@dataclass
class Site:
    """A guarded orchestrator, and how to become somebody there."""

    url: str
    identities: IdentityService
    pool: Pool
    stack: AsyncExitStack
    _asking: httpx2.AsyncClient | None = None

    async def issue(self, *roles: Role, scopes: list[Permission] | None = None, **more: Any) -> Issued:
        """Make somebody of these roles and return a token."""
        somebody = await self.identities.create(PrincipalKind.PERSON, f"p-{uuid4().hex[:12]}", roles, by="test")
        return await self.identities.issue(
            somebody.principal_id, by=somebody.name, with_token=OWN_TOKEN, scopes=scopes, **more
        )

    async def client(self, token: str | None) -> httpx2.AsyncClient:
        """Return a client that sends a token."""
        client = httpx2.AsyncClient(headers=bearer(token), timeout=30, **client_options(self.url))
        return await self.stack.enter_async_context(client)

    async def somebody(self, *roles: Role) -> httpx2.AsyncClient:
        """Return a client that is somebody of these roles."""
        return await self.client((await self.issue(*roles)).secret)

    async def ask(self, method: str, path: str, token: str, **more: Any) -> httpx2.Response:
        """Send one request with a token."""
        self._asking = self._asking or await self.client(None)
        return await self._asking.request(method, path, headers=bearer(token), **more)


@pytest.fixture
async def site(ledger_url: str, pool: Pool) -> AsyncIterator[Site]:
    """A guarded orchestrator."""
    async with guarded(ledger_url) as url, AsyncExitStack() as stack:
        yield Site(url, IdentityService(pool), pool, stack)
