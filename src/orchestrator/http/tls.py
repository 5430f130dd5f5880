"""HTTPS: its certificate, and handshakes that are limited like other anonymous connections."""

import asyncio
import ssl
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from uvicorn.protocols.utils import get_remote_addr

from common.errors import StartupRefused
from orchestrator.http.connections import Connection, Connections

HANDSHAKE_SECONDS = 10.0

MakeProtocol = Callable[[Connection], asyncio.Protocol]


def tls_context(cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext | None:
    """Return what HTTPS is served with, None when no file is named. Raises `StartupRefused`."""
    if cert_file is None and key_file is None:
        return None
    if cert_file is None or key_file is None:
        raise StartupRefused("CHIFFON_TLS_CERT_FILE and CHIFFON_TLS_KEY_FILE belong together: set both or neither.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert_file, key_file)
    except (OSError, ValueError) as error:
        raise StartupRefused(
            f"HTTPS cannot be served with CHIFFON_TLS_CERT_FILE = {cert_file} and "
            f"CHIFFON_TLS_KEY_FILE = {key_file}: {error}."
        ) from None
    return context


class Handshake(asyncio.Protocol):
    """Counts a connection from its first moment, and hands it to the protocol that `make` returns once TLS is agreed.

    An event loop that does the handshake itself tells nothing of a connection before its end.
    """

    def __init__(self, context: ssl.SSLContext, connections: Connections, make: MakeProtocol) -> None:
        self._context = context
        self._connections = connections
        self._make = make
        self._connection: Connection | None = None
        self._agreeing: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        loop = asyncio.get_running_loop()
        self.transport = transport
        address = get_remote_addr(transport)
        self._connection = self._connections.enter(self, address[0] if address else "", now=loop.time())
        if self._connection is None:
            transport.abort()
        else:
            self._agreeing = loop.create_task(self._agree(self._connection), name="tls handshake")

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def check(self, now: float, *, is_stuck: bool) -> None:
        """Do nothing: the handshake has a time of its own."""

    def turn_away(self, status: HTTPStatus, message: str) -> None:
        """Close the connection; before TLS is agreed there is no way to tell why."""
        self.transport.abort()

    async def _agree(self, connection: Connection) -> None:
        early = _Early()
        try:
            secure = await asyncio.get_running_loop().start_tls(
                self.transport, early, self._context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, asyncio.CancelledError):  # also ssl.SSLError, and a handshake that takes too long
            secure = None
        if secure is None or early.is_lost:
            self.transport.abort()
            self._leave()
            return
        protocol = self._make(connection)
        protocol.connection_made(secure)
        secure.set_protocol(protocol)
        for data in early.received:
            protocol.data_received(data)

    def _leave(self) -> None:
        if self._connection is not None:
            self._connections.leave(self._connection)


class _Early(asyncio.Protocol):
    """Keeps what a client sends right behind its handshake."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.received.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
