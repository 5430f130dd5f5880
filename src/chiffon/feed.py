"""Follow the ledger over WebSocket, without a gap and without a repetition, whatever happens to the connection.

The position is the sequence number up to which everything that matches was seen. A lost connection is opened again
from there, after a pause with full jitter.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from chiffon.errors import ApiError, ServerUnreachable
from chiffon.http import ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, bearer
from common.backoff import full_jitter
from common.http_client import is_loopback
from common.rest.events import Event

BAD_PARAMETERS = 4400
log = logging.getLogger(__name__)

# The orchestrator says no, and would again: 4000 and the status that it would have answered over HTTP.
REFUSED = frozenset({BAD_PARAMETERS, 4401, 4403})
MAX_FRAME_BYTES = 16 * 1024 * 1024
# Heartbeats come every 15 s; a feed that is silent for longer is dead, even if its TCP connection does not know.
SILENCE = timedelta(seconds=45)


@dataclass(frozen=True, slots=True)
class Connected:
    """The feed is open: every matching event after `seq` follows."""

    seq: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are wanted; None and an empty tuple mean all."""

    trace_id: object = None
    task_id: object = None
    agent_id: object = None
    types: Sequence[str] = ()

    def query(self, after: int | None) -> str:
        ids = (("trace_id", self.trace_id), ("task_id", self.task_id), ("agent_id", self.agent_id), ("after", after))
        pairs = [(name, str(value)) for name, value in ids if value is not None]
        return urlencode([*pairs, *(("type", kind) for kind in self.types)])


class Feed:
    """One reader's way through the ledger; iterate `follow` once."""

    def __init__(
        self, base_url: str, wanted: Filter, *, after: int | None, patience: timedelta, token: str | None = None
    ) -> None:
        self._base_url = base_url
        self._wanted = wanted
        self._position = after
        self._patience = patience
        self._token = token

    async def follow(self) -> AsyncGenerator[Connected | Event, None]:
        """Yield a `Connected` for every connection that is made, and each event once, in order.

        Raises `ServerUnreachable` when no connection could be made at first, or for `patience` later on, and
        `ApiError` when the orchestrator refuses the parameters.
        """
        failures = 0
        was_connected = False
        lost_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with self._connect() as socket, aclosing(self._read(socket)) as frames:
                    async for item in frames:
                        failures, was_connected = 0, True
                        yield item
            except InvalidStatus as refusal:
                status = refusal.response.status_code
                if status < 500:
                    raise ApiError(status, f"The orchestrator refused the feed: HTTP {status}") from refusal
                failure: Exception = refusal
            except (OSError, TimeoutError, InvalidHandshake, WebSocketException) as broken:
                failure = broken
            else:
                failure = ConnectionError("the orchestrator closed the feed")
            failures += 1
            lost_at = loop.time() if failures == 1 else lost_at
            too_long = loop.time() - lost_at > self._patience.total_seconds()
            if too_long or (not was_connected and failures >= ATTEMPTS):
                raise ServerUnreachable(self._base_url, failure) from failure
            await asyncio.sleep(full_jitter(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE).total_seconds())

    def _connect(self) -> connect:
        parts = urlsplit(self._base_url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        path = parts.path.rstrip("/") + "/api/v1/ws"
        url = urlunsplit((scheme, parts.netloc, path, self._wanted.query(self._position), ""))
        proxy: Literal[True] | None = None if is_loopback(self._base_url) else True
        return connect(
            url,
            proxy=proxy,
            additional_headers=bearer(self._token),
            max_size=MAX_FRAME_BYTES,
            open_timeout=10,
            close_timeout=2,
        )

    async def _read(self, socket: ClientConnection) -> AsyncGenerator[Connected | Event, None]:
        while True:
            try:
                async with asyncio.timeout(SILENCE.total_seconds()):
                    frame = json.loads(await socket.recv())
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code in REFUSED:
                    raise ApiError(
                        closed.rcvd.code - 4000, closed.rcvd.reason or "The orchestrator refused the feed."
                    ) from closed
                # 4008 (this reader fell behind), 1001 (the server leaves) and a cut all mean: go on from here.
                return
            for item in self._advance(frame):
                yield item

    def _advance(self, frame: dict[str, Any]) -> list[Connected | Event]:
        match frame.get("type"):
            case "hello":
                self._position = frame["seq"] if self._position is None else self._position
                return [Connected(self._position)]
            case "gap":
                # A reader from the beginning asked for whatever there is.
                if frame["after"] > 0:
                    log.warning("The events %s to %s are kept no longer.", frame["after"] + 1, frame["until"])
                self._position = max(self._position or 0, frame["until"])
            case "heartbeat":
                self._position = max(self._position or 0, frame["seq"])
            case "event":
                event = Event.model_validate(frame["event"])
                if self._position is None or event.seq > self._position:
                    self._position = event.seq
                    return [event]
        return []
