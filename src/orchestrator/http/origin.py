"""Keep web pages of others from using a browser on this host as their way in."""

import re
from collections.abc import Mapping
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from common.errors import ErrorCode
from orchestrator.http.context import trace_of
from orchestrator.http.errors import problem, response

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# As these are written in a Host header; readers of URLs differ in what they take for the name in anything else.
_OWN_NAME = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
# What a browser lets a foreign page send, but not read the answer of.
READING = frozenset({"GET", "HEAD", "OPTIONS"})
POLICY_VIOLATION = 1008


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Say whether a browser sends this for a page that did not come from here (RFC 6454); programs send no Origin.

    Compared letter by letter and never taken apart: nothing that only looks like this place is this place.
    """
    origin, host = headers.get("origin"), headers.get("host")
    return origin is not None and origin not in (f"http://{host}", f"https://{host}")


class OwnPagesOnly:
    """Refuses what a browser sends on behalf of a page that did not come from here.

    A page of somebody else can have a browser send a POST here, without a question asked, if it has no body. And an
    orchestrator that listens on loopback (`loopback_only`) trusts whoever reaches it: a page whose name was made to
    point to 127.0.0.1 ("DNS rebinding") does, but its requests carry that other name.
    """

    def __init__(self, app: ASGIApp, *, loopback_only: bool) -> None:
        self._app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self._loopback_only and not _is_loopback(headers):
            await _refuse("This orchestrator listens on loopback only; address it as localhost.", scope, receive, send)
        elif is_foreign(headers) and scope.get("method") not in READING:
            await _refuse("Pages of other origins may not use this orchestrator.", scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _refuse(message: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return
    body = problem(HTTPStatus.FORBIDDEN, ErrorCode.INVALID_REQUEST, message, trace_of(scope))
    await response(body)(scope, receive, send)


def _is_loopback(headers: Headers) -> bool:
    return _OWN_NAME.fullmatch(headers.get("host", "")) is not None
