"""The agent on the buses of production: what it runs outlives its connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.main import run_agent
from agents.settings import AgentSettings
from agents.way import BrokerNotReady
from common.config import SharedSettings
from common.messages import ResultStatus
from tests.contract.buses import AmqpBus, PostgresBus, RemoteBus
from tests.contract.proxy import Proxy
from tests.eventually import eventually
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(amqp_url) as proxy:
        yield proxy


@pytest.fixture(params=["postgresql", "amqp"])
def bus(request: pytest.FixtureRequest) -> RemoteBus:
    # Asked for by name, so that a server is started only for the tests that use it.
    if request.param == "postgresql":
        return PostgresBus(request.getfixturevalue("postgres"), request.getfixturevalue("database_url"))
    proxy: Proxy = request.getfixturevalue("proxy")
    return AmqpBus(proxy, request.getfixturevalue("amqp_url"), request.getfixturevalue("rabbitmq"))


@asynccontextmanager
async def running_agent(bus: RemoteBus, state_dir: Path) -> AsyncIterator[None]:
    settings = AgentSettings.load(state_dir=state_dir, slots=2, heartbeat_seconds=0.5, stop_grace_seconds=0)
    stop = asyncio.Event()
    ended = asyncio.create_task(run_agent(settings, SharedSettings(broker_url=bus.url), stop=stop))
    try:
        yield
    finally:
        stop.set()
        await ended


async def test_tasks_run_and_are_reported(bus: RemoteBus, tmp_path: Path) -> None:
    async with (
        bus.open() as broker,
        ScriptedOrchestrator(broker).listening() as orchestrator,
        running_agent(bus, tmp_path / "agent"),
    ):
        await eventually(lambda: orchestrator.heartbeats)
        tasks = [await orchestrator.dispatch("echo", message=str(number)) for number in range(10)]

        for number, task in enumerate(tasks):
            assert (await orchestrator.ended(task)).output == str(number)
        assert await broker.depth(orchestrator.work_queue) == 0


async def test_work_outlives_the_connection_and_its_output_is_whole(bus: RemoteBus, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with (
        bus.open() as broker,
        ScriptedOrchestrator(broker).listening() as orchestrator,
        running_agent(bus, tmp_path / "agent"),
    ):
        await eventually(lambda: orchestrator.heartbeats)
        task = await orchestrator.shell(f"echo before; while [ ! -e {gate} ]; do sleep 0.02; done; echo after")
        await eventually(lambda: orchestrator.output(task) == "before\n")

        await bus.cut_connections()
        beats = len(orchestrator.heartbeats)
        await eventually(lambda: len(orchestrator.heartbeats) > beats, timeout=30)
        gate.touch()

        await eventually(lambda: orchestrator.results[task], timeout=30)
        result = orchestrator.results[task][-1]
        assert result.status is ResultStatus.COMPLETED
        assert result.output == "before\nafter\n"


async def test_an_agent_without_a_broker_does_not_start_and_says_why(tmp_path: Path) -> None:
    settings = AgentSettings.load(state_dir=tmp_path / "agent")
    shared = SharedSettings(broker_url="amqp://guest:guest@127.0.0.1:1/")

    with pytest.raises(BrokerNotReady, match="CHIFFON_BROKER_URL"):
        await run_agent(settings, shared, stop=asyncio.Event())
