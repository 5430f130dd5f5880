"""A whole orchestrator that serves HTTP, on a real ledger, with a broker in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from common.http_client import client_options
from orchestrator.main import serve
from orchestrator.settings import OrchestratorSettings
from tests.services.ports import free_ports


@asynccontextmanager
async def serving(ledger_url: str, **more: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Run an orchestrator, and give a client of its queue API."""
    settings = OrchestratorSettings(database_url=ledger_url, port=free_ports(1)[0], **more)
    started, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(
        serve(settings, SharedSettings(broker_url="memory://"), broker=MemoryBroker(), started=started, stop=stop)
    )
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    async with httpx2.AsyncClient(timeout=30, **client_options(f"http://127.0.0.1:{settings.port}")) as client:
        yield client
    stop.set()
    await running


@pytest.fixture
async def queue(ledger_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the queue API."""
    async with serving(ledger_url) as client:
        yield client
