"""Ask a repaired service by HTTP whether it works."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from common.compose import HealthCheck

LONGEST_REQUEST = 10.0
SHORTEST_REQUEST = 0.5


class Probe(Protocol):
    async def problem(self, *, within: float) -> str | None:
        """Make one request; return what is wrong with the answer, None when it is as expected."""
        ...


@asynccontextmanager
async def open_probe(check: HealthCheck | None) -> AsyncIterator[Probe | None]:
    """Give what makes the requests of a health check; None when there is none."""
    if check is None:
        yield None
        return
    from agents.repairs.http_probe import HttpProbe  # with an HTTP client, which others do without

    async with HttpProbe(check) as probe:
        yield probe
