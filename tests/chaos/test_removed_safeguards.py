"""A check that cannot fail proves nothing: without each safeguard, the checks find what it is there against."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.checks import violations
from tests.chaos.evidence import Evidence, Violation
from tests.chaos.history import History
from tests.chaos.scenarios import SCENARIOS, Scenario, judged
from tests.chaos.world import Services, open_services, open_world

pytestmark = pytest.mark.timeout(180)

each = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.safeguard.value)


@pytest.fixture(scope="module")
async def services() -> AsyncIterator[Services]:
    async with open_services(durable=False, hosts=2 * len(SCENARIOS)) as opened:
        yield opened


@each
async def test_without_a_safeguard_its_promise_is_seen_to_break(
    scenario: Scenario, services: Services, tmp_path: Path
) -> None:
    evidence, found = await _play(scenario, services, tmp_path, removed=scenario.safeguard)

    assert scenario.promise in {violation.promise for violation in found}, report.stories(evidence, found)


@each
async def test_with_it_the_same_faults_break_nothing(scenario: Scenario, services: Services, tmp_path: Path) -> None:
    evidence, found = await _play(scenario, services, tmp_path, removed=None)

    assert not found, report.stories(evidence, found)


async def _play(
    scenario: Scenario, services: Services, folder: Path, *, removed: str | None
) -> tuple[Evidence, list[Violation]]:
    world = open_world(
        scenario.settings,
        folder / "world",
        History(),
        services=services,
        size=scenario.size,
        removed=removed,
    )
    async with world as opened:
        await scenario.play(opened)
        evidence = await judged(opened)
    return evidence, violations(evidence)
