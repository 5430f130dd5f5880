"""Requests to the orchestrator: one answer, or one named error.

A connection that could not be made is tried again, because nothing was sent; so is a request that may be repeated
without harm and whose answer was lost.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from chiffon.errors import ApiError, ServerUnreachable
from common.backoff import full_jitter
from common.errors import StartupRefused
from common.http_client import client_options

ATTEMPTS = 4
FIRST_PAUSE = timedelta(milliseconds=100)
LONGEST_PAUSE = timedelta(seconds=2)
BUSY = frozenset({502, 503, 504})


class UnusableAddress(StartupRefused):
    """The given address of the orchestrator is not a URL."""


def check_address(url: str) -> None:
    """Raise `UnusableAddress` for an address that requests cannot be sent to."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UnusableAddress(f"{url!r} is no address of an orchestrator: give it as http://HOST:PORT or https://HOST.")


class UnusableToken(StartupRefused):
    """What was given as a token is none."""


def bearer(token: str | None) -> dict[str, str]:
    """Return the header that says who asks. Raises `UnusableToken`, which does not repeat it."""
    if token is None:
        return {}
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise UnusableToken("The token cannot be sent: it is empty, or holds characters that no token has.")
    return {"authorization": f"Bearer {token}"}


class Http:
    """An HTTP client bound to one orchestrator."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout: timedelta,
        token: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = base_url
        self._client = httpx2.AsyncClient(
            timeout=timeout.total_seconds(),
            transport=transport,
            headers={"accept": "application/json", **bearer(token)},
            **client_options(base_url),
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def get(self, path: str, params: Mapping[str, Any] | None = None, *, attempts: int = ATTEMPTS) -> Any:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        return await self._request("GET", path, repeatable=True, attempts=attempts, params=given)

    async def post(self, path: str, body: Any = None, *, repeatable: bool, token: str | None = None) -> Any:
        """Send a body; `repeatable` says that sending it twice does no harm. A `token` replaces the client's own."""
        return await self._request("POST", path, repeatable=repeatable, json=body, headers=bearer(token))

    async def put_in(self, path: str, pieces: Callable[[], AsyncIterable[bytes]], *, size: int) -> Any:
        """Send a body of so many bytes as it is, each time anew; sending it twice does no harm."""
        headers = {"content-type": "application/octet-stream", "content-length": str(size)}
        return await self._request("POST", path, repeatable=True, pieces=pieces, headers=headers)

    @asynccontextmanager
    async def fetch(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the pieces of an answer that is no JSON. Whatever cuts it off raises `ServerUnreachable`."""
        try:
            async with self._client.stream("GET", path, headers={"accept": "*/*"}) as response:
                if not response.is_success:
                    await response.aread()
                    _read(response)
                yield response.aiter_raw()
        except httpx2.TransportError as failure:
            raise ServerUnreachable(self._base_url, failure) from failure

    async def delete(self, path: str) -> Any:
        return await self._request("DELETE", path, repeatable=False)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        attempts: int = ATTEMPTS,
        pieces: Callable[[], AsyncIterable[bytes]] | None = None,
        **content: Any,
    ) -> Any:
        for attempt in range(1, attempts + 1):
            last = attempt == attempts
            if pieces is not None:
                content["content"] = pieces()
            try:
                response = await self._client.request(method, path, **content)
            except httpx2.TransportError as failure:
                may_repeat = repeatable or isinstance(failure, httpx2.ConnectError | httpx2.ConnectTimeout)
                if last or not may_repeat:
                    raise ServerUnreachable(self._base_url, failure) from failure
            else:
                if last or not repeatable or response.status_code not in BUSY:
                    return _read(response)
            await asyncio.sleep(full_jitter(attempt, base=FIRST_PAUSE, cap=LONGEST_PAUSE).total_seconds())
        raise AssertionError("the last attempt returns or raises")


def _read(response: httpx2.Response) -> Any:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    if response.is_success and body is not None:
        return body
    raise problem(response.status_code, body, fallback=response.text)


def problem(status: int, body: Any, *, fallback: str = "") -> ApiError:
    """Return the error that a problem document describes, or the best one can say when the answer is none."""
    if not isinstance(body, dict):
        return ApiError(status, f"The answer was not understood (HTTP {status}): {fallback[:200]!r}")
    message = body.get("error_message") or body.get("detail") or body.get("title") or f"HTTP {status}"
    errors, code, trace_id = (body.get(name) for name in ("errors", "error_code", "trace_id"))
    return ApiError(
        status,
        str(message),
        error_code=code if isinstance(code, int) else None,
        trace_id=trace_id if isinstance(trace_id, str) else None,
        problems=[one for one in errors if isinstance(one, dict)] if isinstance(errors, list) else (),
    )
