"""What is tapped is handed over, and the library sees everything else, however the bytes arrive."""

import asyncio
from contextlib import closing

import pytest
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from common.broker import rabbitmq_frames as frames
from common.broker.base import Address, BrokerUnavailable
from common.broker.rabbitmq_attachment import Attachment
from common.broker.rabbitmq_confirms import ConfirmingChannel, Message
from common.broker.rabbitmq_wire import Wire, WireWriter
from common.broker.topology import WORK

pytestmark = pytest.mark.path_internals

TAPPED, OTHER = 2, 3


class Transport(asyncio.Transport):
    """Remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True

    def abort(self) -> None:
        self._closed = True


class Connected:
    """A wire without a network: `receive` is what comes from the broker, `seen` what the library is given."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=2**24)
        self.transport = Transport()
        self.wire = Wire(self._reader, loop)
        self.wire.connection_made(self.transport)
        self._seen = b""

    def write_as_the_library(self, data: bytes) -> None:
        with closing(WireWriter(self.wire, self._reader, asyncio.get_running_loop())) as writer:
            writer.write(data)

    def receive(self, *received: bytes) -> None:
        for part in received:
            self.wire.data_received(part)

    async def all_seen(self) -> bytes:
        self._reader.feed_eof()
        return await self._reader.read()

    async def seen(self) -> bytes:
        """Return what the library was given from the network."""
        return (await self.all_seen()).replace(frames.HEARTBEAT_FRAME, b"")


def delivery(number: int, *bodies: bytes, channel: int = TAPPED) -> bytes:
    parts: list[Frame | ContentHeader | ContentBody] = [
        Basic.Deliver("ctag", number, False, "chiffon.work", "work.infra"),
        ContentHeader(0, sum(map(len, bodies)), Basic.Properties(message_id=str(number))),
        *map(ContentBody, bodies),
    ]
    return b"".join(marshal(part, channel) for part in parts)


def returned(message_id: str) -> bytes:
    parts: list[Frame | ContentHeader | ContentBody] = [
        Basic.Return(312, "NO_ROUTE", "chiffon.work", "work.infra"),
        ContentHeader(0, 4, Basic.Properties(message_id=message_id)),
        ContentBody(b"body"),
    ]
    return b"".join(marshal(part, TAPPED) for part in parts)


def message(message_id: str) -> Message:
    return Message(Address(WORK, "work.infra"), b"body", Basic.Properties(message_id=message_id))


def confirming(connected: Connected) -> ConfirmingChannel:
    channel = ConfirmingChannel(connected.wire, TAPPED, largest_frame=4096)
    connected.wire.tap(TAPPED, channel)
    return channel


@pytest.mark.parametrize("size", [1, 2, 7, 8, 50, 10_000])
async def test_however_the_bytes_arrive_each_gets_its_own_frames(size: int) -> None:
    connected = Connected()
    delivered: list[tuple[int, bytes]] = []

    def take(_attachment: Attachment, arrived: frames.Delivered, _header: bytes, body: bytes) -> None:
        delivered.append((arrived.number, body))

    Attachment(connected.wire, TAPPED, take)
    others = [delivery(9, b"not tapped", channel=OTHER), marshal(Basic.ConsumeOk("ctag"), TAPPED)]
    stream = delivery(1) + others[0] + delivery(2, b"one", b"two", b"three") + others[1] + delivery(3, b"last")

    connected.receive(*(stream[begin : begin + size] for begin in range(0, len(stream), size)))

    assert delivered == [(1, b""), (2, b"onetwothree"), (3, b"last")]
    assert await connected.seen() == b"".join(others)


async def test_the_library_sees_a_sign_of_life_when_everything_is_tapped() -> None:
    connected = Connected()
    Attachment(connected.wire, TAPPED, lambda *_: None)

    connected.receive(delivery(1, b"body"), delivery(2, b"body"))

    assert await connected.all_seen() == frames.HEARTBEAT_FRAME


async def test_a_channel_that_is_no_longer_tapped_is_the_librarys() -> None:
    connected = Connected()
    Attachment(connected.wire, TAPPED, lambda *_: None).end()

    connected.receive(delivery(1, b"body"))

    assert await connected.seen() == delivery(1, b"body")


async def test_a_channel_whose_number_was_given_away_takes_nothing_from_the_next() -> None:
    connected = Connected()
    delivered: list[int] = []
    closed = Attachment(connected.wire, TAPPED, lambda *_: None)
    Attachment(connected.wire, TAPPED, lambda _, arrived, *__: delivered.append(arrived.number))

    closed.end()
    connected.receive(delivery(1, b"body"))

    assert delivered == [1]


@pytest.mark.parametrize("answer", [b"AMQP\0\0\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\3\1\0\2\2\x46"])
async def test_who_speaks_no_amqp_is_left_to_the_library(answer: bytes) -> None:
    connected = Connected()

    connected.receive(answer[:3], answer[3:])

    assert await connected.seen() == answer


async def test_a_stream_that_is_out_of_step_is_an_error() -> None:
    connected = Connected()
    Attachment(connected.wire, TAPPED, lambda *_: None)

    with pytest.raises(frames.NotAFrame):
        connected.receive(delivery(1, b"body")[:-1] + b"\0" + delivery(2, b"body"))


async def test_messages_are_sent_in_one_write_and_confirmed_together() -> None:
    connected = Connected()
    channel = confirming(connected)

    first, second = channel.send([message("a"), message("b")]), channel.send([message("c")])
    connected.wire.flush()
    assert len(connected.transport.written) == 1
    connected.receive(marshal(Basic.Ack(1), TAPPED))
    assert not first.done.done()
    connected.receive(marshal(Basic.Ack(3, multiple=True), TAPPED))

    assert first.done.done()
    assert second.done.done()
    assert (first.returned, first.refused) == ([], [])


async def test_confirms_come_in_any_order() -> None:
    connected = Connected()
    channel = confirming(connected)
    first, second = channel.send([message("a")]), channel.send([message("b")])

    connected.receive(marshal(Basic.Ack(2), TAPPED))

    assert (first.done.done(), second.done.done()) == (False, True)
    connected.receive(marshal(Basic.Ack(2, multiple=True), TAPPED))
    assert first.done.done()


async def test_of_messages_sent_together_those_that_come_back_are_told_from_the_others() -> None:
    connected = Connected()
    batch = confirming(connected).send([message("a"), message("b"), message("a")])

    connected.receive(returned("a"), marshal(Basic.Ack(1), TAPPED), returned("a"))
    connected.receive(marshal(Basic.Ack(3, multiple=True), TAPPED))

    assert batch.done.done()
    assert [one.properties.message_id for one in batch.returned] == ["a", "a"]


async def test_a_refused_message_is_counted() -> None:
    connected = Connected()
    batch = confirming(connected).send([message("a"), message("b")])

    connected.receive(marshal(Basic.Ack(1), TAPPED), marshal(Basic.Nack(2), TAPPED))

    assert batch.done.done()
    assert len(batch.refused) == 1


async def test_what_was_not_confirmed_when_the_connection_is_lost_is_unknown() -> None:
    channel = confirming(Connected())
    batch = channel.send([message("a")])

    channel.fail("it is gone")

    with pytest.raises(BrokerUnavailable, match="it is gone"):
        await batch.done
    with pytest.raises(BrokerUnavailable, match="it is gone"):
        channel.send([message("b")])


async def test_acknowledgements_of_one_turn_leave_as_few_frames_in_one_write() -> None:
    connected = Connected()
    attachment = Attachment(connected.wire, TAPPED, lambda *_: None)
    connected.receive(*(delivery(number, b"body") for number in range(1, 7)))

    attachment.ack([2])
    attachment.ack([1, 3, 6])
    assert not attachment.holds(2)
    await asyncio.sleep(0)

    together = marshal(Basic.Ack(3, multiple=True), TAPPED) + marshal(Basic.Ack(6), TAPPED)
    assert connected.transport.written == [together]


async def test_a_requeue_takes_along_nothing_that_was_acknowledged_before_it() -> None:
    connected = Connected()
    attachment = Attachment(connected.wire, TAPPED, lambda *_: None)
    connected.receive(*(delivery(number, b"body") for number in range(1, 4)))

    attachment.ack([1, 2])
    attachment.requeue([3])
    await asyncio.sleep(0)

    acknowledged = marshal(Basic.Ack(2, multiple=True), TAPPED)
    assert connected.transport.written == [acknowledged + marshal(Basic.Nack(3, True, True), TAPPED)]


async def test_what_the_library_writes_does_not_overtake_an_acknowledgement() -> None:
    connected = Connected()
    attachment = Attachment(connected.wire, TAPPED, lambda *_: None)
    connected.receive(delivery(1, b"body"))
    close = marshal(Channel.Close(200, "", 0, 0), TAPPED)

    attachment.ack([1])
    connected.write_as_the_library(close)

    assert connected.transport.written == [marshal(Basic.Ack(1, multiple=True), TAPPED), close]


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [
        ("low on memory", "memory alarm"),
        ("low on disk", "disk alarm"),
        ("low on memory & disk", "memory and disk alarm"),
    ],
)
async def test_an_alarm_is_known_until_it_is_over(reason: str, wanted: str) -> None:
    connected = Connected()

    connected.receive(marshal(Connection.Blocked(reason), 0))
    assert connected.wire.said.alarm == wanted

    connected.receive(marshal(Connection.Unblocked(), 0))
    assert connected.wire.said.alarm is None


async def test_why_a_connection_is_refused_is_known_and_left_to_the_library() -> None:
    connected = Connected()
    refusal = marshal(Connection.Close(530, "NOT_ALLOWED - vhost nowhere not found", 10, 40), 0)

    connected.receive(refusal)

    assert connected.wire.said.refusal == "NOT_ALLOWED - vhost nowhere not found"
    assert await connected.all_seen() == refusal
