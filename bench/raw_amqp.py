"""AMQP 0-9-1 as bytes over a socket: what RabbitMQ can do at most, with no client library in the way.

Frames (2.3.5 of the specification) are encoded once; of what comes back, only the kind and the delivery tag are read.
"""

import socket
import struct
from collections.abc import Iterator
from threading import Thread
from typing import Self
from urllib.parse import unquote, urlsplit

from pamqp import commands
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.common import FieldTable
from pamqp.frame import marshal
from pamqp.header import ContentHeader

ACK = (60, 80)
DELIVER = (60, 60)
METHOD_FRAME = 1
HEAD = struct.Struct(">BHI")
AT_ONCE = 100


class RawChannel:
    """A connection with one channel that confirms. Everything blocks."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5672))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._methods = self._read()
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        next(self._methods)
        login = f"\x00{unquote(parts.username or 'guest')}\x00{unquote(parts.password or 'guest')}"
        self._ask(commands.Connection.StartOk({}, "PLAIN", login, "en_US"), channel=0)
        self._send(commands.Connection.TuneOk(10, 131_072, 0), channel=0)
        self._ask(commands.Connection.Open(unquote(parts.path[1:]) or "/"), channel=0)
        self._ask(commands.Channel.Open())
        self._ask(commands.Confirm.Select())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._socket.close()

    def declare(self, queue: str) -> None:
        arguments: FieldTable = {"x-max-priority": 5, "x-queue-type": "classic"}
        self._ask(commands.Queue.Declare(queue=queue, durable=True, arguments=arguments))

    def publish(self, queue: str, body: bytes, count: int) -> None:
        """Publish so many persistent messages; returns when all are confirmed."""
        properties = commands.Basic.Properties(delivery_mode=2, priority=3)
        message = b"".join(
            [
                marshal(commands.Basic.Publish(exchange="", routing_key=queue, mandatory=True), 1),
                marshal(ContentHeader(0, len(body), properties), 1),
                marshal(ContentBody(body), 1),
            ]
        )

        def write() -> None:
            for begin in range(0, count, AT_ONCE):
                self._socket.sendall(message * min(AT_ONCE, count - begin))

        writing = Thread(target=write)
        writing.start()
        while self._tag(ACK) < count:
            pass
        writing.join()

    def consume(self, queue: str, count: int) -> None:
        """Take and acknowledge so many messages."""
        self._ask(commands.Basic.Qos(prefetch_count=5 * AT_ONCE))
        self._send(commands.Basic.Consume(queue=queue))
        for seen in range(1, count + 1):
            tag = self._tag(DELIVER)
            if seen % AT_ONCE == 0 or seen == count:
                self._send(commands.Basic.Ack(delivery_tag=tag, multiple=True))

    def _send(self, method: Frame, *, channel: int = 1) -> None:
        self._socket.sendall(marshal(method, channel))

    def _ask(self, method: Frame, *, channel: int = 1) -> None:
        self._send(method, channel=channel)
        next(self._methods)

    def _tag(self, wanted: tuple[int, int]) -> int:
        """Wait for a method that names a delivery tag, and return it."""
        for payload in self._methods:
            kind = struct.unpack_from(">HH", payload)
            if kind == ACK == wanted:
                return int.from_bytes(payload[4:12], "big")
            if kind == DELIVER == wanted:
                begin = 5 + payload[4]  # behind the consumer's tag, a short string
                return int.from_bytes(payload[begin : begin + 8], "big")
        raise ConnectionError("the broker closed the connection")

    def _read(self) -> Iterator[bytes]:
        """Yield the payload of each method frame."""
        waiting = b""
        while read := self._socket.recv(1 << 18):
            waiting += read
            begin = 0
            while len(waiting) - begin >= HEAD.size:
                kind, _, size = HEAD.unpack_from(waiting, begin)
                end = begin + HEAD.size + size
                if len(waiting) < end + 1:
                    break
                if kind == METHOD_FRAME:
                    yield waiting[begin + HEAD.size : end]
                begin = end + 1
            waiting = waiting[begin:]
