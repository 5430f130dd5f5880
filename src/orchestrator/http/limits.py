"""Limit request bodies: each by its size, and all that are being read or worked on by the memory that they share."""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import ErrorCode
from orchestrator.http.context import trace_of
from orchestrator.http.errors import AGAIN_SOON, problem, response

# The largest body of a request that needs no token.
MOST_PUBLIC_BYTES = 4096
# The largest body of a caller who can neither hand in work nor report on it.
MOST_SMALL_BYTES = 256 * 1024
# Under this name the state of a request says that its caller is such a one.
IS_SMALL = "is_small"
# How many bodies of the largest size may be held at a time, as their bytes.
LARGEST_BODIES = 16
# How much, and for how long, is read and thrown away of a body that is refused.
DISCARD_BYTES = 32 * 1024 * 1024
DISCARD_SECONDS = 5.0

NO_ROOM = "Too many request bodies are being read; try again."


class BodyLimit:
    """Answers 413 to a body that is too large, whether its length is announced or not, and 503 when there is no room.

    A body may have `app.state.max_body_bytes`, on a route of `public` `MOST_PUBLIC_BYTES`, and of a caller who has no
    work to hand in `MOST_SMALL_BYTES`: it is read and parsed before a route says whether its caller may use it.
    """

    def __init__(self, app: ASGIApp, *, public: Collection[str]) -> None:
        self._app = app
        self._public = frozenset(public)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        largest: int = scope["app"].state.max_body_bytes
        limit = min(largest, self._most_of(scope, largest))
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        size = int(announced) if announced.isdigit() else 0
        if size > limit:
            await _refuse_size(limit, scope, receive, send)
        elif self._held + size > LARGEST_BODIES * largest:
            await _refuse(HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.UNAVAILABLE, NO_ROOM, scope, receive, send)
        else:
            await self._read(limit, LARGEST_BODIES * largest, scope, receive, send)

    def _most_of(self, scope: Scope, largest: int) -> int:
        if scope["path"] in self._public:
            return MOST_PUBLIC_BYTES
        return MOST_SMALL_BYTES if scope.get("state", {}).get(IS_SMALL, False) else largest

    async def _read(self, limit: int, most: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and count what is read of its body until it is answered."""
        seen = 0
        has_room = True

        async def counted() -> Message:
            nonlocal seen, has_room
            message = await receive()
            if size := len(message.get("body", b"")):
                seen += size
                self._held += size
                has_room = has_room and self._held <= most
            # To the app it looks as if the client had gone; its answer to that is not sent.
            return message if seen <= limit and has_room else {"type": "http.disconnect"}

        async def answer(message: Message) -> None:
            if seen <= limit and has_room:
                await send(message)

        try:
            await self._app(scope, counted, answer)
        finally:
            self._held -= seen
        if seen > limit:
            await _refuse_size(limit, scope, receive, send)
        elif not has_room:
            await _refuse(HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.UNAVAILABLE, NO_ROOM, scope, receive, send)


async def _refuse_size(limit: int, scope: Scope, receive: Receive, send: Send) -> None:
    message = f"The body is too large; at most {limit} bytes are read."
    await _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ErrorCode.INVALID_REQUEST, message, scope, receive, send)


async def _refuse(
    status: HTTPStatus, code: ErrorCode, message: str, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer at once, then read on without keeping anything, within reason, before the connection is closed.

    Closing on a sender resets the connection, and the answer is lost with it.
    """
    headers = {"connection": "close"}
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers |= AGAIN_SOON
    refusal = response(problem(status, code, message, trace_of(scope)), headers)
    await send({"type": "http.response.start", "status": status, "headers": refusal.raw_headers})
    await send({"type": "http.response.body", "body": refusal.body, "more_body": True})
    await _discard(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            left = DISCARD_BYTES
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
