"""The body of an upload reaches its route unread; every other body is left as it is."""

from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from common.errors import InvalidField
from orchestrator.artifacts.streams import UPLOADS, Stream, Streams, UploadCutOff, stream_of

HEADERS = [(b"content-type", b"application/octet-stream"), (b"content-length", b"6"), (b"x-trace-id", b"t")]


def body(*pieces: bytes, ends: bool = True) -> Receive:
    """Return a client that sends a body in pieces, and goes away then unless that `ends` it."""
    left = list(pieces)

    async def receive() -> Message:
        if not left:
            return {"type": "http.disconnect"}
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left) or not ends}

    return receive


class App:
    """Remembers what it was called with."""

    def __init__(self) -> None:
        self.scope: Any = None
        self.receive: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive = scope, receive


async def send(_: Message) -> None:
    raise AssertionError("nothing is answered here")


def scope(method: str = "POST", path: str = UPLOADS, kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "method": method, "path": path, "headers": HEADERS, "state": {"caller": "ann"}}


def stream(receive: Receive, **headers: str) -> Stream:
    given = {"content_type": "application/octet-stream", **headers}
    return Stream(receive, Headers({name.replace("_", "-"): value for name, value in given.items()}))


async def test_an_upload_has_no_body_for_what_stands_before_its_route_and_its_route_gets_all() -> None:
    app = App()

    await Streams(app)(scope(), body(b"abc", b"", b"def"), send)

    assert app.scope["headers"] == [(b"x-trace-id", b"t")]
    assert app.scope["state"]["caller"] == "ann"
    assert await app.receive() == {"type": "http.request", "body": b"", "more_body": False}
    found = stream_of(app.scope)
    assert found.announced == 6
    assert [part async for part in found.parts()] == [b"abc", b"def"]


@pytest.mark.parametrize(
    "other",
    [scope("GET"), scope("PUT"), scope(path="/api/v1/dispatch"), scope(path=f"{UPLOADS}/"), scope(kind="websocket")],
    ids=lambda one: f"{one['type']} {one['method']} {one['path']}",
)
async def test_every_other_request_is_handed_on_as_it_is(other: dict[str, Any]) -> None:
    app, receive = App(), body(b"{}")

    await Streams(app)(other, receive, send)

    assert (app.scope, app.receive) == (other, receive)
    assert app.scope["headers"] == HEADERS


async def test_a_body_that_ends_too_early_is_told_from_a_whole_one() -> None:
    parts = stream(body(b"abc", ends=False)).parts()

    assert await anext(parts) == b"abc"
    with pytest.raises(UploadCutOff):
        await anext(parts)


@pytest.mark.parametrize(("given", "size"), [("12", 12), ("", 0), ("-1", 0), ("1\u00b2", 0), ("1e3", 0)])
def test_a_length_is_believed_when_it_is_one(given: str, size: int) -> None:
    assert stream(body(), content_length=given).announced == size


@pytest.mark.parametrize("kind", ["application/octet-stream", " Application/Octet-Stream "])
def test_bytes_are_taken_as_they_are(kind: str) -> None:
    stream(body(), content_type=kind, content_encoding="identity").check()


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"content_type": "application/json"}, "header.content-type"),
        ({"content_type": "multipart/form-data; boundary=x"}, "header.content-type"),
        ({"content_type": "application/octet-stream, text/plain"}, "header.content-type"),
        ({"content_type": ""}, "header.content-type"),
        ({"content_encoding": "gzip"}, "header.content-encoding"),
    ],
    ids=str,
)
def test_what_is_not_sent_as_bytes_is_refused_by_the_name_of_its_header(headers: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        stream(body(), **headers).check()

    assert caught.value.field == field
