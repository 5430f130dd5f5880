"""The keepers that start the programs of these tests."""

from collections.abc import Iterator

import pytest

from agents.processes.keepers import Keepers


@pytest.fixture
def keepers() -> Iterator[Keepers]:
    with Keepers() as keepers:
        yield keepers
