"""Keep web pages of others from using a browser on this host as their way in."""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from common.errors import ErrorCode
from orchestrator.http.context import trace_of
from orchestrator.http.errors import problem, response

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Say whether a browser sends this for a page that did not come from here (RFC 6454); programs send no Origin."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


class LoopbackOnly:
    """Refuses requests that were not addressed to this host by a name of its own.

    An orchestrator that listens on loopback trusts whoever reaches it. A page whose name was made to point to
    127.0.0.1 ("DNS rebinding") reaches it too, but its requests carry that other name.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_loopback(Headers(scope=scope)):
            message = "This orchestrator listens on loopback only; address it as localhost or 127.0.0.1."
            body = problem(HTTPStatus.FORBIDDEN, ErrorCode.INVALID_REQUEST, message, trace_of(scope))
            await response(body)(scope, receive, send)
        elif scope["type"] == "websocket" and not _is_loopback(Headers(scope=scope)):
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._app(scope, receive, send)


def _is_loopback(headers: Headers) -> bool:
    return urlsplit(f"//{headers.get('host', '')}").hostname in LOOPBACK
