"""Limit the open connections, so that anonymous clients leave room for known callers, the database and the broker.

A connection is anonymous until the door admits a caller on it. Anonymous connections are limited by address and in
all; where one too many comes, the oldest one goes, so that a new client that sends its request at once is served.
Connections of known callers are limited by the files that the process may open.
"""

import resource
import socket
import struct
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Protocol

from orchestrator.http.addresses import Network, counted_as, is_within

# The most anonymous connections in all; never more than half of all connections.
MOST_ANONYMOUS = 2048
# The most anonymous connections of one address; more only while the oldest had no time to send its request.
MOST_OF_ADDRESS = 100
GRACE_SECONDS = 1.0
# Files for logs, keys, listening sockets and the broker, beside the connections to the database.
SET_ASIDE = 100
# Less than may be anonymous: callers that come back together are known before the oldest of them would have to go.
LONGEST_BACKLOG = 1024
# A client that takes none of what was written for it in this time is cut off.
WRITE_SECONDS = 20.0

# Under this name the state of a request or WebSocket holds its connection.
CONNECTION = "connection"

FULL = "The orchestrator has no room for another connection; try again."
TOO_MANY_OF_ADDRESS = "Too many connections from this address were opened without a token."


class Transport(Protocol):
    """What is needed of an `asyncio.Transport`."""

    def get_write_buffer_size(self) -> int: ...

    def is_closing(self) -> bool: ...

    def get_extra_info(self, name: str) -> Any: ...

    def abort(self) -> None: ...


class Holder(Protocol):
    """The protocol that a connection speaks at the moment."""

    @property
    def transport(self) -> Transport: ...

    def check(self, now: float, *, is_stuck: bool) -> None:
        """Close the connection if its client is late; `is_stuck`: it takes nothing of what was written."""
        ...

    def turn_away(self, status: HTTPStatus, message: str) -> None:
        """Close the connection, and tell its client why if the protocol allows it."""
        ...


class Connection:
    """One open connection; `holder` changes when it changes its protocol."""

    __slots__ = (
        "address", "connections", "holder", "is_exempt", "is_known", "moved", "since", "unsent", "was_closing"
    )  # fmt: skip

    def __init__(
        self, connections: "Connections", holder: Holder, address: str, *, is_exempt: bool, now: float
    ) -> None:
        self.connections = connections
        self.holder = holder
        self.address = address
        self.is_exempt = is_exempt
        self.is_known = False
        self.since = now
        self.moved = now
        self.unsent = 0
        self.was_closing = False

    def recognise(self) -> None:
        """Count the connection as one of a known caller from now on."""
        if not self.is_known:
            self.connections.recognise(self)

    def is_stuck(self, now: float) -> bool:
        """Return whether the client has taken nothing for too long of what was written for it."""
        transport = self.holder.transport
        unsent, is_closing = transport.get_write_buffer_size(), transport.is_closing()
        if unsent == 0 or unsent < self.unsent or is_closing is not self.was_closing:
            self.moved = now
        self.unsent, self.was_closing = unsent, is_closing
        return now - self.moved > WRITE_SECONDS


class Connections:
    """All open connections of a server, at most `most`; an address of `proxies` has no limit of its own."""

    def __init__(self, *, most: int, proxies: Sequence[Network] = ()) -> None:
        self._most = most
        self._most_anonymous = min(MOST_ANONYMOUS, most // 2)
        self._proxies = proxies
        self._open: set[Connection] = set()
        # Those that this round of checks has yet to look at.
        self._unseen: list[Connection] = []
        # In the order of their coming.
        self._anonymous: dict[Connection, None] = {}
        self._by_address: defaultdict[str, dict[Connection, None]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def anonymous(self) -> int:
        return len(self._anonymous)

    def enter(self, holder: Holder, address: str, *, now: float) -> Connection | None:
        """Count a new connection, at the cost of an older one if need be; None when all others are of known callers."""
        connection = Connection(self, holder, counted_as(address), is_exempt=is_within(address, self._proxies), now=now)
        if not connection.is_exempt:
            self._make_room_of(connection.address, now)
        if len(self._anonymous) >= self._most_anonymous or len(self._open) >= self._most:
            if not self._anonymous:
                return None
            self._turn_away(next(iter(self._anonymous)), HTTPStatus.SERVICE_UNAVAILABLE, FULL)
        self._open.add(connection)
        self._anonymous[connection] = None
        if not connection.is_exempt:
            self._by_address[connection.address][connection] = None
        return connection

    def recognise(self, connection: Connection) -> None:
        """Count a connection as one of a known caller."""
        connection.is_known = True
        self._forget_anonymous(connection)

    def leave(self, connection: Connection) -> None:
        """Count a connection no more."""
        if connection in self._open:
            self._open.discard(connection)
            self._forget_anonymous(connection)
            # Its holder refers to it in turn, and what does so in a circle is freed late.
            del connection.holder

    def check(self, now: float, *, parts: int = 1) -> None:
        """Close the connections whose clients are late with what they send, or take nothing of what is sent.

        One of so many parts of them is looked at, the next one in the next call.
        """
        if not self._unseen:
            self._unseen = list(self._open)
        count = max(1, -(-len(self._open) // parts))
        seen = self._unseen[-count:]
        del self._unseen[-count:]
        for connection in seen:
            if connection not in self._open:
                continue
            is_stuck = connection.is_stuck(now)
            if not connection.was_closing:
                connection.holder.check(now, is_stuck=is_stuck)
            elif is_stuck:
                reset(connection.holder.transport)

    def _make_room_of(self, address: str, now: float) -> None:
        of_address = self._by_address.get(address)
        if of_address is not None and len(of_address) >= MOST_OF_ADDRESS:
            oldest = next(iter(of_address))
            if now - oldest.since > GRACE_SECONDS:
                self._turn_away(oldest, HTTPStatus.TOO_MANY_REQUESTS, TOO_MANY_OF_ADDRESS)

    def _turn_away(self, connection: Connection, status: HTTPStatus, message: str) -> None:
        # It leaves when its transport is closed; until then it must not be chosen again.
        self._forget_anonymous(connection)
        connection.holder.turn_away(status, message)

    def _forget_anonymous(self, connection: Connection) -> None:
        self._anonymous.pop(connection, None)
        of_address = self._by_address.get(connection.address)
        if of_address is not None:
            of_address.pop(connection, None)
            if not of_address:
                del self._by_address[connection.address]


def reset(transport: Transport) -> None:
    """End a connection at once, and with it what the kernel still keeps for a client that reads nothing."""
    connected: socket.socket = transport.get_extra_info("socket")
    with suppress(OSError):  # it is gone already
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def room(*, database_connections: int) -> tuple[int, int]:
    """Return how many connections may be open, and how many may wait, with the files that this process may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # All that wait can be accepted at once, before the first is turned away.
    backlog = max(16, min(LONGEST_BACKLOG, files // 4))
    return max(16, files - backlog - database_connections - SET_ASIDE), backlog
