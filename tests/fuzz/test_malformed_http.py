"""Bytes that are no HTTP, which no application sees: answered in the one shape all the same."""

import socket
from http.client import HTTPResponse

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.bounds import SEED, bounded
from tests.fuzz.running import Running
from tests.fuzz.shapes import check_answer

pytestmark = pytest.mark.xdist_group("orchestrator")

NO_HTTP = {
    "no words": b"\x00\xff\x16\x03\x01 hello\r\n\r\n",
    "a method that does not exist": b"FOO /api/v1/tasks HTTP/1.1\r\nHost: a\r\n\r\n",
    "no version": b"GET /api/v1/tasks HTTP\r\n\r\n",
    "a header without a name": b"GET /health HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "a length that is no number": b"POST /api/v1/dispatch HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n",
    "two lengths": b"POST /api/v1/dispatch HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk without a size": b"POST /api/v1/dispatch HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
}


def _exchange(orchestrator: Running, sent: bytes) -> None:
    host, port = orchestrator.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as opened:
        opened.sendall(sent)
        opened.shutdown(socket.SHUT_WR)
        answer = HTTPResponse(opened)
        answer.begin()
        check_answer(answer.status, answer.getheader("content-type", ""), answer.read())


@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_is_answered_in_the_one_shape(orchestrator: Running, sent: bytes) -> None:
    _exchange(orchestrator, sent)


def test_any_method_and_header_that_cannot_be_read_are_answered_in_the_one_shape(orchestrator: Running) -> None:
    line = st.binary(min_size=1, max_size=40).filter(lambda text: not {10, 13} & set(text))

    @hypothesis.seed(SEED)
    @bounded(50)
    @given(line, line)
    def send(first: bytes, header: bytes) -> None:
        _exchange(orchestrator, b"?" + first + b" / HTTP/1.1\r\n" + header + b"\r\n\r\n")

    send()
