"""The servers of the chaos tests. Tests that take `services` stay in one worker (`xdist_group`)."""

from collections.abc import AsyncIterator

import pytest

from tests.chaos.world import Services, open_services

MOST_WORLDS = 12


@pytest.fixture(scope="session")
async def services() -> AsyncIterator[Services]:
    """A PostgreSQL and a RabbitMQ that tests crash."""
    async with open_services(hosts=MOST_WORLDS) as opened:
        yield opened
