"""A real docker, and on it a compose project that is repaired."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from agents.attempts.stopping import StopSignal
from agents.executors.base import Outcome
from agents.processes.keepers import Keepers
from agents.processes.table import TASK_VARIABLE
from tests.integration.repairs.shop import Shop
from tests.services.docker import DockerDaemon
from tests.unit.agents.executing import Output
from tests.unit.agents.repairs.workshop import Told, carry_out


@dataclass
class Repaired:
    """One repair: how its attempt ended, and what it said."""

    outcome: Outcome
    told: Told
    output: Output
    task_id: UUID


Repair = Callable[..., Awaitable[Repaired]]


@pytest.fixture(scope="session")
def docker() -> Iterator[DockerDaemon]:
    daemon = DockerDaemon()
    yield daemon
    daemon.stop()


@pytest.fixture
def keepers() -> Iterator[Keepers]:
    with Keepers() as keepers:
        yield keepers


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory, docker: DockerDaemon) -> AsyncIterator[Shop]:
    """A shop that runs, for all tests of a module: a repair leaves it working, or as it was."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in docker.environment.items():
            patched.setenv(name, value)
        shop = Shop.made(tmp_path_factory.mktemp("shop"), docker)
        await asyncio.to_thread(shop.up)
        yield shop
        await asyncio.to_thread(docker.remove_all)


@pytest.fixture
def repair(shop: Shop, keepers: Keepers) -> Repair:
    """Carry a repair out, whose patch is a script."""

    async def repaired(script: str, *, stop: StopSignal | None = None, **changes: Any) -> Repaired:
        told, output = Told(), Output()
        context = shop.context(keepers, told, output, stop=stop or StopSignal())
        outcome = await carry_out(shop.executor(), shop.parameters(script, **changes), context)
        return Repaired(outcome, told, output, UUID(context.ids[TASK_VARIABLE]))

    return repaired
