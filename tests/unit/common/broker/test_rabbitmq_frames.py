"""Our frames are those of AMQP: the library reads what we write, and we read what it writes."""

import pytest
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import marshal, unmarshal
from pamqp.header import ContentHeader

from common.broker import rabbitmq_frames as frames
from common.broker.base import Address
from common.broker.topology import WORK

pytestmark = pytest.mark.path_internals

PROPERTIES = Basic.Properties(
    content_type="application/json",
    content_encoding="utf-8",
    headers={"reason": "gone", "queue": "work.infra"},
    delivery_mode=2,
    priority=4,
    correlation_id="one",
    reply_to="two",
    expiration="60000",
    message_id="an-id",
    message_type="claim",
    user_id="agent-1",
    app_id="an application",
)


def payload(frame: bytes) -> bytes:
    return frame[frames.HEAD.size : -1]


def test_a_publish_is_mandatory_and_its_content_follows() -> None:
    _, channel, method = unmarshal(frames.publish_method(7, Address(WORK, "work.infra")))
    header_frame, body_frame = frames.content_frames(7, PROPERTIES, b"body", largest=4096)
    _, _, header = unmarshal(header_frame)
    _, _, body = unmarshal(body_frame)

    assert isinstance(method, Basic.Publish)
    assert (channel, method.exchange, method.routing_key) == (7, WORK.name, "work.infra")
    assert (method.mandatory, method.immediate) == (True, False)
    assert isinstance(header, ContentHeader)
    assert header.body_size == 4
    assert dict(header.properties) == dict(PROPERTIES)
    assert isinstance(body, ContentBody)
    assert body.value == b"body"


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 9000])
def test_a_body_is_cut_into_frames_of_the_size_that_was_agreed_on(size: int) -> None:
    sent = bytes(range(256)) * 36
    header, *bodies = frames.content_frames(1, PROPERTIES, sent[:size], largest=4096)

    assert frames.body_size(payload(header)) == size
    assert all(len(body) <= 4096 for body in bodies)
    assert b"".join(map(payload, bodies)) == sent[:size]


def test_an_address_that_no_queue_can_have_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        frames.publish_method(1, Address(WORK, "x" * 256))


def test_properties_are_read_as_the_library_writes_them() -> None:
    read = frames.read_properties(payload(marshal(ContentHeader(0, 9, PROPERTIES), 1)))

    assert read == frames.Properties(
        "application/json", {"reason": "gone", "queue": "work.infra"}, 4, "an-id", "claim", "agent-1"
    )
    assert frames.read_properties(payload(marshal(ContentHeader(0, 9, Basic.Properties()), 1))) == frames.Properties()


def test_nonsense_in_headers_hides_neither_the_sender_nor_the_rest() -> None:
    header = payload(marshal(ContentHeader(0, 9, PROPERTIES), 1)).replace(b"S\0\0\0\4gone", b"?\0\0\0\4gone")

    read = frames.read_properties(header)

    assert (read.headers, read.message_id, read.user_id) == ({}, "an-id", "agent-1")


def test_tables_in_tables_without_end_are_no_headers() -> None:
    table = b""
    for _ in range(5000):
        table = b"\1aF" + len(table).to_bytes(4, "big") + table
    written = b"\0<\0\0" + bytes(8) + b"\x20\0" + len(table).to_bytes(4, "big") + table

    assert frames.read_properties(written) == frames.Properties(headers={})


def test_properties_that_end_too_early_are_none() -> None:
    whole = payload(marshal(ContentHeader(0, 9, PROPERTIES), 1))

    for size in range(12, len(whole)):
        frames.read_properties(whole[:size])

    assert frames.read_properties(whole[:13]) == frames.Properties()


def test_what_is_no_utf_8_is_read_and_can_be_written_again() -> None:
    read, _ = frames.read_short(b"\xff" + b"\xe4" * 255, 0)

    again = frames.short_enough(read)

    assert set(again) == {"\N{REPLACEMENT CHARACTER}"}
    assert len(again.encode()) <= frames.LONGEST_SHORT_STRING


def test_a_delivery_is_read_as_the_library_writes_it() -> None:
    delivered = payload(marshal(Basic.Deliver("ctag", 2**40, True, "chiffon.work", "work.infra"), 1))

    assert frames.method_of(delivered) == frames.DELIVER
    assert frames.read_delivered(delivered) == frames.Delivered(2**40, True, "work.infra")
