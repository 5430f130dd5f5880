"""The AMQP frames that a message costs, as bytes: 2.3.5 and 4.2 of the specification of AMQP 0-9-1.

pamqp writes them. What a sender decides (routing key, properties) is read here: pamqp raises an error for text that is
not UTF-8, and the connection of the reader would end with it.
"""

from functools import lru_cache
from struct import Struct, error
from typing import NamedTuple

from pamqp import decode
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.common import FieldTable
from pamqp.frame import marshal
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from common.broker.base import Address

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
KINDS = frozenset((METHOD, HEADER, BODY, HEARTBEAT))
HEAD = Struct(">BHI")
END = 0xCE
# What surrounds the payload of a frame: its head and its end.
OVERHEAD = HEAD.size + 1
HEARTBEAT_FRAME = marshal(Heartbeat(), 0)

RETURN, DELIVER, ACK, NACK = ((60 << 16) | method for method in (50, 60, 80, 120))
CLOSE, BLOCKED, UNBLOCKED = ((10 << 16) | method for method in (50, 60, 61))
LONGEST_SHORT_STRING = 255

METHOD_INDEX = Struct(">I")
_NUMBER = Struct(">Q")
_CONTENT = Struct(">HxxQ")
_FLAGS = Struct(">H")

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE, _PRIORITY = 1 << 15, 1 << 14, 1 << 13, 1 << 12, 1 << 11
_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID = 1 << 10, 1 << 9, 1 << 8, 1 << 7
_TIMESTAMP, _TYPE, _USER_ID = 1 << 6, 1 << 5, 1 << 4


class NotAFrame(Exception):
    """What came is not AMQP."""


class Properties(NamedTuple):
    """What is read of a message's properties."""

    content_type: str | None = None
    headers: FieldTable | None = None
    priority: int | None = None
    message_id: str | None = None
    type: str | None = None
    user_id: str | None = None


class Delivered(NamedTuple):
    """What a Basic.Deliver says about the message that follows it."""

    number: int
    redelivered: bool
    routing_key: str


def end_of_frame(data: bytes, begin: int) -> int:
    """Return where the frame ends that begins there, behind the data when it is not complete. Raises `NotAFrame`."""
    if len(data) - begin < HEAD.size:
        return len(data) + 1
    kind, _, size = HEAD.unpack_from(data, begin)
    if kind not in KINDS:
        raise NotAFrame("What was received does not begin like a frame of AMQP.")
    end = begin + OVERHEAD + int(size)
    if end <= len(data) and data[end - 1] != END:
        raise NotAFrame("A frame of AMQP does not end where it said.")
    return end


def method_of(payload: bytes) -> int:
    """Return which method a method frame calls."""
    return int(METHOD_INDEX.unpack_from(payload)[0])


@lru_cache(maxsize=4096)
def publish_method(channel: int, address: Address) -> bytes:
    """Return the frame that publishes to an address, and comes back when no queue takes it. Raises `ValueError`."""
    exchange, routing_key = address.exchange.name, address.routing_key
    for name in (exchange, routing_key):
        if len(name.encode()) > LONGEST_SHORT_STRING:
            raise ValueError(f"{name[:40]!r}... is longer than {LONGEST_SHORT_STRING} bytes.")
    return marshal(Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True), channel)


def content_frames(channel: int, properties: Basic.Properties, body: bytes, *, largest: int) -> list[bytes]:
    """Return the frames that follow a method which brings a message; `largest` is the limit of a frame's size."""
    room = largest - OVERHEAD
    return [
        marshal(ContentHeader(body_size=len(body), properties=properties), channel),
        *(marshal(ContentBody(body[begin : begin + room]), channel) for begin in range(0, len(body), room)),
    ]


def read_properties(payload: bytes) -> Properties:
    """Read the properties in the payload of a header frame. What cannot be read, nobody has said."""
    try:
        return _read_properties(payload)
    except (IndexError, ValueError, error):
        # Anybody may send nonsense; it must not cost the reader its connection.
        return Properties()


def _read_properties(payload: bytes) -> Properties:
    flags = _FLAGS.unpack_from(payload, _CONTENT.size)[0]
    at = _CONTENT.size + _FLAGS.size
    content_type, at = _read(_CONTENT_TYPE, flags, payload, at)
    _, at = _read(_CONTENT_ENCODING, flags, payload, at)
    headers = priority = None
    if flags & _HEADERS:
        end = at + METHOD_INDEX.size + METHOD_INDEX.unpack_from(payload, at)[0]
        headers = _read_headers(payload[at:end])
        at = end
    if flags & _DELIVERY_MODE:
        at += 1
    if flags & _PRIORITY:
        priority = payload[at]
        at += 1
    for unread in (_CORRELATION_ID, _REPLY_TO, _EXPIRATION):
        _, at = _read(unread, flags, payload, at)
    message_id, at = _read(_MESSAGE_ID, flags, payload, at)
    if flags & _TIMESTAMP:
        at += _NUMBER.size
    type, at = _read(_TYPE, flags, payload, at)
    user_id, at = _read(_USER_ID, flags, payload, at)
    return Properties(content_type, headers, priority, message_id, type, user_id)


def _read_headers(table: bytes) -> FieldTable:
    try:
        return decode.field_table(table)[1]
    except Exception:  # a sender can make it fail in many ways, also by tables in tables in tables
        return {}


def _read(flag: int, flags: int, payload: bytes, at: int) -> tuple[str | None, int]:
    """Read a short string that is there when its flag is set; return it and where the next field begins."""
    return read_short(payload, at) if flags & flag else (None, at)


def read_delivered(payload: bytes) -> Delivered:
    """Read the payload of a Basic.Deliver frame."""
    at = METHOD_INDEX.size + 1 + payload[METHOD_INDEX.size]  # behind the name of the consumer, a short string
    number = _NUMBER.unpack_from(payload, at)[0]
    at += _NUMBER.size
    redelivered = payload[at] != 0
    at += 1
    at += 1 + payload[at]  # behind the name of the exchange
    return Delivered(number, redelivered, read_short(payload, at)[0])


def body_size(payload: bytes) -> int:
    """Return how long the body is that a header frame announces."""
    return int(_CONTENT.unpack_from(payload)[1])


def short_enough(text: str) -> str:
    """Return the text, cut to what a short string holds: what was no UTF-8 is longer once it is read."""
    return text.encode()[:LONGEST_SHORT_STRING].decode(errors="ignore")


def read_short(payload: bytes, at: int) -> tuple[str, int]:
    """Read a short string; return it and where the next field begins."""
    begin = at + 1
    end = begin + payload[at]
    return payload[begin:end].decode(errors="replace"), end


def read_reason(payload: bytes) -> str:
    """Return why a connection is blocked or closed, the first short string of that method's arguments."""
    begin = METHOD_INDEX.size + (2 if method_of(payload) == CLOSE else 0)
    return payload[begin + 1 : begin + 1 + payload[begin]].decode(errors="replace")
