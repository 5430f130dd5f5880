"""The WebSockets through which readers watch events live, and resume where they were."""

import asyncio
import logging
from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import Query, WebSocket, WebSocketDisconnect

from common.errors import InvalidField
from orchestrator.database.pool import Pool
from orchestrator.events import queries
from orchestrator.http.errors import BAD_PARAMETERS
from orchestrator.http.routes import Router
from orchestrator.http.websocket import wire_of
from orchestrator.identities.access import READ
from orchestrator.live.frame import encode, to_json
from orchestrator.live.hub import Hub
from orchestrator.live.outlet import OnTheWire, Outlet, ThroughAsgi
from orchestrator.live.subscription import Filter, Subscription

log = logging.getLogger(__name__)

router = Router(tags=["live"])

FELL_BEHIND = 4008
FAILED = 1011
HEARTBEAT_SECONDS = 15.0
PAGE = 200
MAX_SEQ = 2**63 - 1
DIGITS = len(str(MAX_SEQ))


class FellBehind(Exception):
    """The reader was too slow; it can come back and resume after the last event that it has seen."""


class UnknownPosition(Exception):
    """The reader wants to resume behind an event that does not exist, as after a ledger was restored."""

    def __init__(self, newest: int) -> None:
        super().__init__(f"after is beyond the newest event, which is {newest}")


class Watcher:
    """One reader: it is shown the past from the ledger, then the present from the hub, without a seam."""

    def __init__(self, socket: WebSocket, pool: Pool, hub: Hub, wanted: Filter, *, heartbeat: float) -> None:
        self._socket = socket
        self._pool = pool
        self._hub = hub
        self._wanted = wanted
        self._heartbeat = heartbeat

    async def run(self, after: int | None) -> None:
        """Show events until the reader leaves; raises `FellBehind` when it is too slow."""
        with self._hub.watched():
            position = self._hub.position if after is None else await self._known(after)
            await self._socket.send_text(to_json({"type": "hello", "seq": position}))
            outlet = self._outlet()
            while (subscription := self._hub.attach(self._wanted, outlet, after=position)) is None:
                position = await self._replay(position)
            try:
                await self._beat(subscription)
            finally:
                self._hub.detach(subscription)
        raise FellBehind

    def _outlet(self) -> Outlet:
        wire = wire_of(self._socket.scope)
        return ThroughAsgi(self._socket.send_text) if wire is None else OnTheWire(wire)

    async def _beat(self, subscription: Subscription) -> None:
        """Let a reader know that nothing happens, until it has fallen behind; what does happen, the hub shows."""
        while not subscription.fell_behind.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat):
                    await subscription.fell_behind.wait()
            if subscription.was_quiet():
                subscription.beat(self._hub.shown)

    async def _known(self, after: int) -> int:
        """Return the position, or raise `UnknownPosition` when no event has that number yet.

        Another orchestrator may have shown the reader what this one has yet to read, so the ledger decides.
        """
        if after > self._hub.position:
            async with self._pool.acquire() as db:
                newest = await queries.head(db)
            if after > newest:
                raise UnknownPosition(newest)
        return after

    async def _replay(self, after: int) -> int:
        """Show one page of the past and return the position behind it.

        Say first which events before the page are kept no longer, if any.
        """
        until = self._hub.position
        async with self._pool.acquire() as db:
            page = await queries.follow(
                db,
                after=after,
                until=until,
                limit=PAGE,
                task_id=self._wanted.task_id,
                trace_id=self._wanted.trace_id,
                agent_id=self._wanted.agent_id,
                kinds=sorted(self._wanted.kinds),
            )
            # Asked after the page was read, so that no event is removed unseen in between.
            oldest = await queries.oldest(db)
        first = min(oldest, page.rows[0].seq if page.rows else until + 1)
        if after < first - 1:
            await self._socket.send_text(to_json({"type": "gap", "after": after, "until": first - 1}))
        for event in page.rows:
            await self._socket.send_text(encode(event))
        return page.rows[-1].seq if page.has_more else until


@router.websocket("/ws/{trace_id}", dependencies=[READ])
async def watch_trace(socket: WebSocket, trace_id: str, after: str | None = None) -> None:
    """Watch everything that happens to the tasks of one trace."""
    await _serve(socket, after=after, trace_id=trace_id)


@router.websocket("/api/v1/ws", dependencies=[READ])
async def watch(
    socket: WebSocket,
    trace_id: str | None = None,
    task_id: str | None = None,
    agent_id: str | None = None,
    type: Annotated[list[str] | None, Query()] = None,
    after: str | None = None,
) -> None:
    """Watch the events that match everything given; `after` resumes behind an event that was seen."""
    await _serve(socket, after=after, trace_id=trace_id, task_id=task_id, agent_id=agent_id, kinds=type)


async def _serve(
    socket: WebSocket,
    *,
    after: str | None,
    trace_id: str | None = None,
    task_id: str | None = None,
    agent_id: str | None = None,
    kinds: list[str] | None = None,
) -> None:
    wanted = Filter(
        task_id=_uuid("task_id", task_id),
        trace_id=_uuid("trace_id", trace_id),
        agent_id=_uuid("agent_id", agent_id),
        kinds=frozenset(kinds or ()),
    )
    position = _position(after)
    await socket.accept()
    live = socket.app.state.live
    watcher = Watcher(socket, live.pool, live.hub, wanted, heartbeat=HEARTBEAT_SECONDS)
    await _until_either_ends(socket, watcher, position)


async def _until_either_ends(socket: WebSocket, watcher: Watcher, after: int | None) -> None:
    """Show events until the reader hangs up: its frames are read only to notice that."""
    showing = asyncio.create_task(watcher.run(after), name="watcher")
    hearing = asyncio.create_task(_hear(socket), name="watcher-hears")
    try:
        await asyncio.wait({showing, hearing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (showing, hearing):
            task.cancel()
        results = await asyncio.gather(showing, hearing, return_exceptions=True)
    match results[0]:
        case UnknownPosition() as unknown:
            await _close(socket, BAD_PARAMETERS, str(unknown))
        case FellBehind():
            await _close(socket, FELL_BEHIND, "the reader fell behind; connect again with after=<last seq seen>")
        case WebSocketDisconnect() | asyncio.CancelledError() | None:
            pass
        case failure:
            log.error("watcher.failed", exc_info=failure)
            await _close(socket, FAILED, "the orchestrator cannot go on; connect again with after=<last seq seen>")


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.close(code, reason)


async def _hear(socket: WebSocket) -> None:
    with suppress(WebSocketDisconnect):
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass


def _uuid(name: str, value: str | None) -> UUID | None:
    try:
        return None if value is None else UUID(value)
    except ValueError:
        raise InvalidField(name, "must be a UUID") from None


def _position(after: str | None) -> int | None:
    if after is None:
        return None
    if not after.isascii() or not after.isdigit() or len(after) > DIGITS or int(after) > MAX_SEQ:
        raise InvalidField("after", "must be the number of an event: 0 or more")
    return int(after)
