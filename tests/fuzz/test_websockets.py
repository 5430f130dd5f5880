"""Whatever a reader of the WebSockets says: it is served or closed with a reason, and others never notice."""

import json
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.fuzz.bounds import SEED, bounded
from tests.fuzz.running import Running

pytestmark = pytest.mark.xdist_group("orchestrator")

SECONDS = 10
BAD_PARAMETERS = 4400
OUR_FAULT = {1006, 1011}

texts = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["-1", "9" * 30, "0", "\x00", "NaN", "१२", "1e3", " 1", "+1", "0x10", str(2**63)]),
    st.uuids().map(str),
)
queries = st.lists(
    st.tuples(st.sampled_from(["after", "trace_id", "task_id", "agent_id", "type", "unknown"]), texts), max_size=5
)
frames = st.lists(
    st.one_of(st.text(max_size=200), st.binary(max_size=200), st.lists(st.binary(max_size=20), min_size=1, max_size=4)),
    max_size=5,
)


def _open(orchestrator: Running, path: str) -> ClientConnection:
    return connect(orchestrator.websocket + path, open_timeout=SECONDS, close_timeout=1, compression=None)


def _first(socket: ClientConnection) -> Any:
    return json.loads(socket.recv(timeout=SECONDS))


def _is_served(orchestrator: Running) -> bool:
    with _open(orchestrator, f"/ws/{uuid4()}") as socket:
        return bool(_first(socket)["type"] == "hello")


def _outcome(orchestrator: Running, path: str) -> str | int:
    """Return "served", the code of the close, or the status of the refusal."""
    try:
        with _open(orchestrator, path) as socket:
            return "served" if _first(socket)["type"] == "hello" else "something else"
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None and closed.rcvd.reason else "hung up"
    except InvalidStatus as refused:
        return refused.response.status_code


def test_any_query_is_served_or_closed_with_a_reason(orchestrator: Running) -> None:
    outcomes = set[str | int]()

    @hypothesis.seed(SEED)
    @bounded(60)
    @given(st.booleans(), texts, queries)
    def watch(one_trace: bool, trace: str, query: list[tuple[str, str]]) -> None:
        path = f"/ws/{quote(trace, safe='')}" if one_trace and trace.strip("./") else "/api/v1/ws"
        text = "&".join(f"{name}={quote(value)}" for name, value in query)
        outcomes.add(_outcome(orchestrator, f"{path}?{text}"))

    watch()
    assert {"served", BAD_PARAMETERS} <= outcomes <= {"served", BAD_PARAMETERS, 403, 404}
    assert _is_served(orchestrator)


def test_any_frames_from_a_reader_change_nothing(orchestrator: Running) -> None:
    @hypothesis.seed(SEED)
    @bounded(30)
    @given(frames)
    def talk(said: list[str | bytes | list[bytes]]) -> None:
        with _open(orchestrator, "/api/v1/ws") as socket:
            _first(socket)
            for frame in said:
                socket.send(frame)
            socket.ping().wait(SECONDS)
            assert socket.close_code is None

    talk()
    assert _is_served(orchestrator)


NO_FRAMES = {
    "zeros": b"\x00" * 50,
    "ones": b"\xff" * 50,
    "a frame without a mask": b"\x81\x05hello",
    "a frame that never ends": b"\x81\xfe\xff\xff",
    "an unknown kind": b"\x83\x80\x00\x00\x00\x00",
    "a close without a code": b"\x88\x80\x00\x00\x00\x00",
}


@pytest.mark.parametrize("raw", NO_FRAMES.values(), ids=NO_FRAMES)
def test_bytes_that_are_no_frames_close_only_their_own_connection(orchestrator: Running, raw: bytes) -> None:
    with _open(orchestrator, "/api/v1/ws") as bystander:
        _first(bystander)
        with suppress(ConnectionClosed, TimeoutError), _open(orchestrator, "/api/v1/ws") as socket:
            _first(socket)
            socket.socket.sendall(raw)
            socket.recv(timeout=0.5)
        bystander.ping().wait(SECONDS)
        assert bystander.close_code is None


def test_a_frame_that_is_too_large_closes_the_connection_and_is_not_kept(orchestrator: Running) -> None:
    with _open(orchestrator, "/api/v1/ws") as socket:
        _first(socket)
        with suppress(ConnectionClosed):
            socket.send("x" * (16 * 1024 * 1024 + 1))
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=SECONDS)

    assert closed.value.rcvd is None or closed.value.rcvd.code not in OUR_FAULT
    assert _is_served(orchestrator)
