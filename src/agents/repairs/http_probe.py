"""Make the HTTP requests of a health check."""

import asyncio
from types import TracebackType
from typing import Self

import httpx2

from agents.repairs.probe import LONGEST_REQUEST, SHORTEST_REQUEST
from common.compose import HealthCheck
from common.http_client import is_loopback, trust_for


class HttpProbe:
    """Use it as a context manager. Redirects are not followed: the status is that of the service itself."""

    def __init__(self, check: HealthCheck) -> None:
        self._check = check
        self._client = httpx2.AsyncClient(
            verify=trust_for(check.url), trust_env=not is_loopback(check.url), follow_redirects=False
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def problem(self, *, within: float) -> str | None:
        """Make one request; return what is wrong with the answer, None when it is as expected."""
        check = self._check
        seconds = min(LONGEST_REQUEST, max(SHORTEST_REQUEST, within))
        try:
            # The client's own limit is for each piece of an answer, so one that drips would never end.
            async with (
                asyncio.timeout(seconds),
                self._client.stream(check.method, check.url, timeout=seconds) as answer,
            ):
                status = answer.status_code  # what the answer holds is not read
        except TimeoutError:
            return f"{check.method} {check.url} gave no answer: it took longer than {seconds:g} seconds."
        except (httpx2.HTTPError, httpx2.InvalidURL) as problem:
            return f"{check.method} {check.url} gave no answer: {str(problem) or type(problem).__name__}."
        if status != check.expected_status:
            return f"{check.method} {check.url} gave {status}, and {check.expected_status} was expected."
        return None
