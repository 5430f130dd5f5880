"""A real orchestrator in a thread of its own, so that a test without an event loop can talk to it over the network."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import uvloop

from agents.main import run_agent
from agents.settings import AgentSettings
from common.broker.base import Broker
from common.broker.connect import open_broker
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from orchestrator.main import serve
from orchestrator.settings import OrchestratorSettings
from tests.services.ports import free_ports

T = TypeVar("T")
SECONDS = 30.0


@dataclass(frozen=True)
class Running:
    """An orchestrator that serves, with its broker; both live in the loop of the thread."""

    address: str
    broker: Broker
    loop: asyncio.AbstractEventLoop

    @property
    def http(self) -> str:
        return f"http://{self.address}"

    @property
    def websocket(self) -> str:
        return f"ws://{self.address}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something in the loop of the orchestrator."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(SECONDS)


@contextmanager
def running_orchestrator(
    database_url: str, broker_url: str = "memory://", agent: AgentSettings | None = None, **more: Any
) -> Iterator[Running]:
    """Serve an orchestrator, and run an agent if one is wanted, as long as the block runs."""
    [port] = free_ports(1)
    given = {"database_url": database_url, "port": port, "broker_identities": "trusted", **more}
    settings = OrchestratorSettings(**given)
    shared, ready = SharedSettings(broker_url=broker_url), threading.Event()
    held: dict[str, Any] = {}

    async def main() -> None:
        held["loop"], held["stop"] = asyncio.get_running_loop(), asyncio.Event()
        async with open_broker(broker_url, name="fuzz") as broker:
            held["broker"] = broker
            # In memory all share one broker, elsewhere each has connections of its own.
            await run(broker if isinstance(broker, MemoryBroker) else None)

    async def run(given: Broker | None) -> None:
        started, stop = asyncio.Event(), held["stop"]
        serving = asyncio.create_task(serve(settings, shared, broker=given, started=started, stop=stop))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not started.is_set():
            await serving
        parts = [serving]
        if agent is not None:
            parts.append(asyncio.create_task(run_agent(agent, shared, broker=given, stop=stop)))
        ready.set()
        await asyncio.gather(*parts)

    def work() -> None:
        try:
            uvloop.run(main())  # as `chiffon server` does
        except BaseException as failure:
            held["failure"] = failure
            raise
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="orchestrator")
    thread.start()
    ready.wait(SECONDS)
    try:
        assert "failure" not in held, held.get("failure")
        yield Running(f"127.0.0.1:{port}", held["broker"], held["loop"])
    finally:
        if thread.is_alive():
            held["loop"].call_soon_threadsafe(held["stop"].set)
        thread.join(SECONDS)
    assert "failure" not in held, held.get("failure")
