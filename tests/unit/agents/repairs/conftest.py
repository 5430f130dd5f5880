"""A host on which a service is repaired, for each test."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agents.attempts.stopping import StopSignal
from agents.executors.base import Outcome
from agents.processes.keepers import Keepers
from agents.processes.table import TASK_VARIABLE
from tests.unit.agents.conftest import nothing_left
from tests.unit.agents.executing import Output
from tests.unit.agents.repairs.fake_docker import FakeDocker
from tests.unit.agents.repairs.quick import QuickKeepers
from tests.unit.agents.repairs.workshop import Told, Workshop, carry_out, make_repository


@dataclass
class Repaired:
    """One repair: how its attempt ended, and what it said."""

    outcome: Outcome
    told: Told
    output: Output
    task_id: UUID

    @property
    def result(self) -> dict[str, Any]:
        result = self.outcome.result
        assert isinstance(result, dict), self.outcome.error_message
        return result


Repair = Callable[..., Awaitable[Repaired]]


MakeWorkshop = Callable[[Path], Workshop]


@pytest.fixture
def keepers() -> Iterator[Keepers]:
    with ExitStack() as stack, QuickKeepers(guarding=lambda: stack.enter_context(nothing_left())) as keepers:
        yield keepers


@pytest.fixture(scope="session")
def make_workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeWorkshop]:
    """Make a workshop in a directory; all have one program that plays docker, and copies of one repository."""
    repository = tmp_path_factory.mktemp("repository")
    make_repository(repository)

    with FakeDocker() as docker:

        def make(folder: Path) -> Workshop:
            workshop = Workshop(folder)
            workshop.make(docker, repository)
            return workshop

        yield make


@pytest.fixture
def workshop(make_workshop: MakeWorkshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    workshop = make_workshop(tmp_path)
    monkeypatch.setenv("PATH", workshop.environment["PATH"])
    monkeypatch.setattr("agents.repairs.deploying.STEADY_SECONDS", 0.05)
    return workshop


@pytest.fixture
def repair(workshop: Workshop, keepers: Keepers) -> Repair:
    """Carry a repair out; parameters that are named replace the usual ones."""

    async def repaired(
        *,
        stop: StopSignal | None = None,
        told: Told | None = None,
        context: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Repaired:
        told, output = told or Told(), Output()
        given = workshop.context(keepers, told, output, stop=stop or StopSignal(), **(context or {}))
        outcome = await carry_out(workshop.executor(), workshop.parameters(**changes), given)
        return Repaired(outcome, told, output, UUID(given.ids[TASK_VARIABLE]))

    return repaired
