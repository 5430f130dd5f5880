"""A fake orchestrator for each test, reached over real HTTP and WebSocket."""

from collections.abc import Iterator

import pytest

from tests.services.ports import free_ports
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator, Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server of fakes: to start and stop one costs more than most tests."""
    server = Server()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fake(server: Server) -> Iterator[FakeOrchestrator]:
    fake = FakeOrchestrator()
    with server.serving(fake):
        yield fake


@pytest.fixture
def url(server: Server, fake: FakeOrchestrator) -> str:
    """The URL at which the fake of this test answers."""
    return server.url


@pytest.fixture
def nobody_url() -> str:
    """A URL at which nobody answers."""
    (port,) = free_ports(1)
    return f"http://127.0.0.1:{port}"
