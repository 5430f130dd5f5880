"""HTTPS: its certificate, and handshakes that are limited like other anonymous connections."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Self

from common.errors import StartupRefused
from common.private import check_private
from orchestrator.http.connections import Connection, Connections

HANDSHAKE_SECONDS = 10.0
# How long a client may take to answer that a connection is closed.
GOODBYE_SECONDS = 2.0
# After a connection that could not be accepted.
PAUSE_SECONDS = 0.1

MakeProtocol = Callable[[Connection], asyncio.Protocol]


def tls_context(cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext | None:
    """Return what HTTPS is served with, None when no file is named. Raises `StartupRefused`."""
    if cert_file is None and key_file is None:
        return None
    if cert_file is None or key_file is None:
        raise StartupRefused("CHIFFON_TLS_CERT_FILE and CHIFFON_TLS_KEY_FILE belong together: set both or neither.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        check_private(key_file, "The key of the certificate,")
        context.load_cert_chain(cert_file, key_file)
    except (OSError, ValueError) as error:
        raise StartupRefused(
            f"HTTPS cannot be served with CHIFFON_TLS_CERT_FILE = {cert_file} and "
            f"CHIFFON_TLS_KEY_FILE = {key_file}: {error}."
        ) from None
    return context


class TlsServer:
    """Accepts connections on a listening socket, and hands each to the protocol that `make` returns once TLS is agreed.

    The event loop's own server tells nothing of a connection before the end of its handshake; here it counts from the
    beginning.
    """

    def __init__(
        self, listening: socket.socket, context: ssl.SSLContext, connections: Connections, make: MakeProtocol
    ) -> None:
        self._listening = listening
        self._context = context
        self._connections = connections
        self._make = make
        self._agreeing: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept(), name="accept tls")

    def close(self) -> None:
        """Accept no more."""
        self._accepting.cancel()
        for agreeing in self._agreeing:
            agreeing.cancel()

    async def wait_closed(self) -> None:
        """Wait for the end of what `close` cancelled."""
        await asyncio.gather(self._accepting, *self._agreeing, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        self._listening.setblocking(False)
        while True:
            try:
                accepted, address = await loop.sock_accept(self._listening)
            except OSError:  # no file is free, or the client has gone again
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            agreeing = asyncio.create_task(self._agree(accepted, str(address[0])), name="agree on tls")
            self._agreeing.add(agreeing)
            agreeing.add_done_callback(self._agreeing.discard)

    async def _agree(self, accepted: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        connection = self._connections.enter(_Handshake(accepted), address, now=loop.time())
        if connection is None:
            accepted.close()
            return
        protocol = self._make(connection)
        try:
            await loop.connect_accepted_socket(
                lambda: protocol,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=GOODBYE_SECONDS,
            )
        except (OSError, asyncio.CancelledError):  # also ssl.SSLError, and a handshake that takes too long
            self._connections.leave(connection)
            accepted.close()


class _Handshake:
    """Holds a connection until its protocol takes over. A holder and its transport in one: there is nothing to send."""

    def __init__(self, accepted: socket.socket) -> None:
        self._accepted = accepted

    @property
    def transport(self) -> Self:
        return self

    def check(self, now: float, *, is_stuck: bool) -> None:
        """Do nothing: the handshake has a time of its own."""

    def turn_away(self, status: HTTPStatus, message: str) -> None:
        """Close the connection; before TLS is agreed there is no way to tell why."""
        self.abort()

    def abort(self) -> None:
        with suppress(OSError):  # it is gone already
            self._accepted.shutdown(socket.SHUT_RDWR)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> socket.socket:
        return self._accepted
