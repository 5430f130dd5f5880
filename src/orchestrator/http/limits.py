"""Refuse a request body that is larger than allowed, before it is in memory."""

import asyncio
from contextlib import suppress
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import ErrorCode
from orchestrator.http.context import trace_of
from orchestrator.http.errors import problem, response

# How many times the limit, and for how long, a body that is too large is read and thrown away.
DISCARD_LIMITS = 4
DISCARD_SECONDS = 5.0


class BodyLimit:
    """Answers 413 when a body is larger than `app.state.max_body_bytes`, whether its length is announced or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit: int = scope["app"].state.max_body_bytes
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if announced.isdigit() and int(announced) > limit:
            await self._refuse(limit, scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            # To the app it looks as if the client had gone; its answer to that is not sent.
            return message if seen <= limit else {"type": "http.disconnect"}

        async def answer(message: Message) -> None:
            if seen <= limit:
                await send(message)

        await self._app(scope, counted, answer)
        if seen > limit:
            await self._refuse(limit, scope, receive, send)

    async def _refuse(self, limit: int, scope: Scope, receive: Receive, send: Send) -> None:
        await self._discard(limit, receive)
        message = f"The body is too large; at most {limit} bytes are read."
        body = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ErrorCode.INVALID_REQUEST, message, trace_of(scope))
        await response(body, {"connection": "close"})(scope, receive, send)

    async def _discard(self, limit: int, receive: Receive) -> None:
        """Read on without keeping anything, within reason: closing on a sender resets the connection, and the answer
        is lost with it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                left = DISCARD_LIMITS * limit
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
