"""The proxy reads what clients of any language send."""

import asyncio

import pytest

from chiffon.conformance.http1 import Malformed, RawRequest, read_request


class Written:
    """Takes what would go back to the client."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, data: bytes) -> None:
        self.content += data


async def read(content: bytes) -> tuple[RawRequest | None, bytes]:
    reader, writer = asyncio.StreamReader(), Written()
    reader.feed_data(content)
    reader.feed_eof()
    return await read_request(reader, writer), writer.content  # type: ignore[arg-type]


async def test_a_body_of_a_known_length_is_read() -> None:
    request, _ = await read(b"POST /a HTTP/1.1\r\nContent-Length: 2\r\nX: y\r\n\r\n{}rest")

    assert request == RawRequest("POST", "/a", {"content-length": "2", "x": "y"}, b"{}")


async def test_a_body_in_chunks_is_put_together() -> None:
    request, _ = await read(
        b'POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4;x=y\r\n":1}\r\n0\r\nT: 1\r\n\r\n'
    )

    assert request is not None
    assert request.body == b'{"a":1}'


async def test_a_client_that_asks_whether_to_go_on_is_told_so() -> None:
    request, told = await read(b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n1")

    assert request is not None
    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_connection_that_is_closed_between_requests_is_no_request() -> None:
    assert (await read(b""))[0] is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"POST /a", "within the head"),
        (b"nonsense\r\n\r\n", "no request line"),
        (b"POST /a HTTP/1.1\r\nContent-Length: many\r\n\r\n", "no number"),
        (b"POST /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "a body of -1 bytes"),
        (b"POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}", "within the body"),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no number"),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "within the body"),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "a chunk of -1 bytes"),
    ],
)
async def test_what_is_no_request_is_named(content: bytes, problem: str) -> None:
    with pytest.raises(Malformed, match=problem):
        await read(content)
