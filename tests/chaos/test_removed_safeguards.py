"""A check that cannot fail proves nothing: without each safeguard, the checks find what it is there against."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.checks import violations
from tests.chaos.evidence import Evidence
from tests.chaos.history import History
from tests.chaos.plan import Settings
from tests.chaos.removed import Safeguard
from tests.chaos.scenarios import CONTROLS, CRASH, SCENARIOS, Scenario, broker_crash, judged
from tests.chaos.world import Services, Size, World, open_world

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("chaos")]

# A safeguard names the world without it, a size the world of that size with all safeguards.
Name = Safeguard | Size


@pytest.fixture(scope="module")
async def evidence(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Mapping[Name, Evidence]:
    """Every scenario without its safeguard and with all of them, in worlds side by side; the broker's crash is last."""
    async with AsyncExitStack() as stack:
        worlds = await _open_worlds(stack, services, tmp_path_factory.mktemp("worlds"))
        async with asyncio.TaskGroup() as group:
            for name, world in worlds.items():
                group.create_task(_play(name, world))
        crashing: set[Name] = {CRASH.safeguard, CRASH.size}
        found = {name: await judged(world) for name, world in worlds.items() if name not in crashing}
        await broker_crash(*(worlds[name] for name in crashing))
        return found | {name: await judged(worlds[name]) for name in crashing}


@pytest.mark.parametrize("scenario", [*SCENARIOS, CRASH], ids=lambda scenario: scenario.safeguard.value)
async def test_without_a_safeguard_its_promise_is_seen_to_break(
    scenario: Scenario, evidence: Mapping[Name, Evidence]
) -> None:
    found = violations(evidence[scenario.safeguard])

    assert scenario.promise in {violation.promise for violation in found}, report.stories(
        evidence[scenario.safeguard], found
    )


@pytest.mark.parametrize("size", CONTROLS, ids=lambda size: f"{len(size.agents)} agents")
async def test_with_all_of_them_the_same_faults_break_nothing(size: Size, evidence: Mapping[Name, Evidence]) -> None:
    found = violations(evidence[size])

    assert not found, report.stories(evidence[size], found)


async def _open_worlds(stack: AsyncExitStack, services: Services, folder: Path) -> Mapping[Name, World]:
    async def opened(name: Name, size: Size, settings: Settings, removed: Safeguard | None = None) -> None:
        place = folder / str(len(list(folder.iterdir())))
        place.mkdir()
        world = open_world(settings, place / "world", History(), services=services, size=size, removed=removed)
        worlds[name] = await stack.enter_async_context(world)

    worlds: dict[Name, World] = {}
    # All are there before the first fault: a start takes processor time that short leases need.
    async with asyncio.TaskGroup() as group:
        for scenario in (*SCENARIOS, CRASH):
            group.create_task(opened(scenario.safeguard, scenario.size, scenario.settings, scenario.safeguard))
        for size, settings in CONTROLS.items():
            group.create_task(opened(size, size, settings))
    return worlds


async def _play(name: Name, world: World) -> None:
    for scenario in SCENARIOS:
        if name in (scenario.safeguard, scenario.size):
            await scenario.play(world)
