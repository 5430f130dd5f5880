"""A fake orchestrator for each test, reached over real HTTP and WebSocket."""

from collections.abc import Iterator

import pytest

from tests.services.ports import free_ports
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator, Served


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served(FakeOrchestrator())
    served.start()
    yield served
    served.stop()


@pytest.fixture
def fake(served: Served) -> FakeOrchestrator:
    return served.fake


@pytest.fixture
def url(served: Served) -> str:
    return served.url


@pytest.fixture
def nobody_url() -> str:
    """A URL at which nobody answers."""
    (port,) = free_ports(1)
    return f"http://127.0.0.1:{port}"
