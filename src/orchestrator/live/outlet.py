"""Where what a reader is shown goes: onto the wire of its WebSocket, or through any server that speaks ASGI."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from starlette.websockets import WebSocketDisconnect

from orchestrator.http.websocket import Wire, framed
from orchestrator.live.frame import Page


class Outlet(Protocol):
    """Takes what a reader is shown and never waits. `on_ready` is called whenever it takes more again."""

    on_ready: Callable[[], None]

    @property
    def is_ready(self) -> bool:
        """Whether the reader takes what it is sent; otherwise nothing must be shown."""
        ...

    def show(self, page: Page) -> None:
        """Send events."""
        ...

    def say(self, text: str) -> None:
        """Send a text that is no event."""
        ...


class OnTheWire:
    """Writes the same bytes for every reader of a page."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._write = wire.write_frames

    @property
    def on_ready(self) -> Callable[[], None]:
        return self._wire.on_ready

    @on_ready.setter
    def on_ready(self, call: Callable[[], None]) -> None:
        self._wire.on_ready = call

    @property
    def is_ready(self) -> bool:
        return self._wire.is_ready

    def show(self, page: Page) -> None:
        self._write(page.wire)

    def say(self, text: str) -> None:
        self._write(framed(text.encode()))


class ThroughAsgi:
    """Sends one text after the other, as every server can."""

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self._send = send
        self._sending: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        return self._sending is None

    def show(self, page: Page) -> None:
        self._begin([frame.text for frame in page.frames])

    def say(self, text: str) -> None:
        self._begin([text])

    def _begin(self, texts: list[str]) -> None:
        self._sending = asyncio.create_task(self._send_all(texts), name="outlet")

    async def _send_all(self, texts: list[str]) -> None:
        # Who hears that the reader has left is not told again here.
        with suppress(WebSocketDisconnect, RuntimeError):
            for text in texts:
                await self._send(text)
        self._sending = None
        self.on_ready()
