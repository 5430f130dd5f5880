"""What surrounds every request: its trace, its line in the log, and the headers of every answer."""

import logging
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

TRACE_HEADER = b"x-trace-id"
# How many characters of a path a log holds; the routes have no longer ones.
LONGEST_PATH = 300
POLICY_HEADER = b"content-security-policy"
# What a browser is told about every answer, errors included: run and load nothing from elsewhere, show it in no frame,
# do not guess its type, do not tell other sites its address. A page that needs more sends a policy of its own.
POLICY = b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
PROTECTIVE = (
    (POLICY_HEADER, POLICY),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


def logged_path(scope: Scope) -> str:
    """Return the path of a request for a log: a stranger's may be as long as a head, and longer when written out."""
    path: str = scope["path"]
    return path if len(path) <= LONGEST_PATH else f"{path[:LONGEST_PATH]}…"


def trace_of(scope: Any) -> UUID:
    """Return the trace of a request: what its caller sent as X-Trace-Id, or a new one."""
    state = scope.setdefault("state", {})
    if "trace_id" not in state:
        state["trace_id"] = _sent(scope) or uuid4()
    trace_id: UUID = state["trace_id"]
    return trace_id


def _sent(scope: Scope) -> UUID | None:
    for name, value in scope.get("headers", ()):
        if name == TRACE_HEADER:
            try:
                return UUID(value.decode("ascii"))
            except ValueError:
                return None
    return None


class RequestContext:
    """Logs each request with its trace, status and duration; adds the trace and `PROTECTIVE` to the answer.

    What the app does not answer because it failed, `on_error` answers.
    """

    def __init__(self, app: ASGIApp, *, on_error: Callable[[Scope, Exception], ASGIApp]) -> None:
        self._app = app
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        trace_id = trace_of(scope)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                own = any(name == POLICY_HEADER for name, _ in headers)
                headers += PROTECTIVE[1:] if own else PROTECTIVE
                headers.append((TRACE_HEADER, str(trace_id).encode()))
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            if status:  # too late: half of an answer is on its way
                raise
            await self._on_error(scope, error)(scope, receive, answer)
        finally:
            if log.isEnabledFor(logging.INFO):
                duration_ms = round((time.perf_counter() - began) * 1000, 1)
                log.info(
                    "request",
                    extra={
                        "trace_id": trace_id,
                        "method": scope["method"],
                        "path": logged_path(scope),
                        "status": status,
                        "duration_ms": duration_ms,
                        **scope["state"].get("asked_by", {}),
                    },
                )
