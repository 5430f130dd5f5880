"""A download is the part that is asked for, under headers that let no browser run it."""

from typing import Any
from uuid import UUID

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from orchestrator.artifacts.downloads import CHUNK_BYTES, Download, NoSuchPart, Part, download, headers_for, part_of

TRACE = UUID(int=5)
SHA = "ab" * 32
ETAG = f'"{SHA}"'
CONTENT = bytes(range(256)) * 2500


class Opened:
    """A content in memory."""

    def __init__(self, content: bytes = CONTENT, *, size: int | None = None, failure: Exception | None = None) -> None:
        self.size = len(content) if size is None else size
        self.closed = 0
        self.most = 0
        self._content = content
        self._failure = failure

    async def read(self, offset: int, size: int) -> bytes:
        if self._failure is not None:
            raise self._failure
        self.most = max(self.most, size)
        return self._content[offset : offset + size]

    def close(self) -> None:
        self.closed += 1


async def answered(content: Opened, **asked: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the answer to a request with these headers."""
    given = Headers({name.replace("_", "-"): value for name, value in asked.items()})
    response = download(content, headers_for("dist/a.whl", "file", SHA), given, TRACE)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await response({"type": "http", "method": "GET", "headers": [], "extensions": {}}, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-", Part(0, 100)),
        ("bytes=0-0", Part(0, 1)),
        ("bytes=10-19", Part(10, 20)),
        ("BYTES=10-19", Part(10, 20)),
        (" bytes=10-19 ", Part(10, 20)),
        ("bytes=99-", Part(99, 100)),
        ("bytes=90-1000", Part(90, 100)),
        ("bytes=-1", Part(99, 100)),
        ("bytes=-100", Part(0, 100)),
        ("bytes=-1000", Part(0, 100)),
        # What is wrong or more than one part is answered with the whole.
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=a-b", None),
        ("bytes=\u0661-\u0662", None),
        ("bytes=+1-2", None),
        ("bytes=1_0-2_0", None),
        ("bytes 0-1", None),
        ("items=0-1", None),
        ("bytes=" + "9" * 5000 + "-", None),
        ("", None),
    ],
    ids=str,
)
def test_a_range_is_read_as_the_rfc_says(header: str | None, part: Part | None) -> None:
    assert part_of(header, 100) == part


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0), ("bytes=-5", 0)],
)
def test_a_range_without_a_byte_cannot_be_satisfied(header: str, size: int) -> None:
    with pytest.raises(NoSuchPart):
        part_of(header, size)


async def test_the_whole_is_sent_in_chunks_and_closed() -> None:
    content = Opened()

    status, headers, body = await answered(content)

    assert (status, body) == (200, CONTENT)
    assert headers["content-length"] == str(len(CONTENT))
    assert "content-range" not in headers
    assert (content.closed, content.most) == (1, CHUNK_BYTES)


async def test_a_part_is_sent_alone_with_its_place() -> None:
    content = Opened()

    status, headers, body = await answered(content, range="bytes=300000-300009")

    assert (status, body) == (206, CONTENT[300000:300010])
    assert (headers["content-length"], headers["content-range"]) == ("10", f"bytes 300000-300009/{len(CONTENT)}")
    assert content.closed == 1


async def test_a_part_that_is_not_there_is_refused_like_any_error() -> None:
    content = Opened()

    status, headers, body = await answered(content, range=f"bytes={len(CONTENT)}-")

    assert (status, headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")
    assert headers["content-type"] == "application/problem+json"
    assert b'"error_code":1002' in body.replace(b": ", b":")
    assert content.closed == 1


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(ETAG, 206), (f'"{"cd" * 32}"', 200), ("Sun, 22 Nov 2026 10:00:00 GMT", 200), (f"W/{ETAG}", 200)],
)
async def test_a_part_of_another_content_is_not_sent(if_range: str, status: int) -> None:
    assert (await answered(Opened(), range="bytes=1-2", if_range=if_range))[0] == status


@pytest.mark.parametrize(
    ("if_none_match", "status"), [(ETAG, 304), (f'"x", W/{ETAG}', 304), ("*", 304), ('"x"', 200), (SHA, 200)]
)
async def test_a_content_that_the_client_has_is_not_sent_again(if_none_match: str, status: int) -> None:
    content = Opened()

    found, headers, body = await answered(content, if_none_match=if_none_match)

    assert found == status
    assert (body == b"") == (status == 304)
    assert headers["etag"] == ETAG
    assert content.closed == 1


async def test_an_empty_content_is_a_content() -> None:
    status, headers, body = await answered(Opened(b""))

    assert (status, headers["content-length"], body) == (200, "0", b"")


@pytest.mark.parametrize(
    "content", [Opened(failure=OSError("broken")), Opened(b"short", size=10)], ids=["fails", "is shorter"]
)
async def test_a_download_that_cannot_be_finished_is_broken_off_and_closed(content: Opened) -> None:
    with pytest.raises((OSError, EOFError)):
        await answered(content)

    assert content.closed == 1


async def test_a_client_that_goes_away_leaves_nothing_open() -> None:
    content = Opened()
    response = Download(content, Part(0, content.size), status=200, headers={"etag": ETAG})  # type: ignore[arg-type]

    async def gone(_: Message) -> None:
        raise OSError("the connection is closed")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(OSError, match="closed"):
        await response({"type": "http"}, receive, gone)

    assert content.closed == 1


@pytest.mark.parametrize(
    ("type", "kind"),
    [
        ("file", "application/octet-stream"),
        ("report_html", "application/octet-stream"),
        ("build_log", "text/plain; charset=utf-8"),
        ("plan_snapshot", "text/plain; charset=utf-8"),
    ],
)
def test_no_download_is_of_a_type_that_a_browser_runs(type: str, kind: str) -> None:
    headers = headers_for("page.html", type, SHA)

    assert headers["content-type"] == kind
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["content-disposition"].startswith("attachment; ")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dist/a.whl", "attachment; filename=\"a.whl\"; filename*=UTF-8''a.whl"),
        ('a"b;c.txt', "attachment; filename=\"a_b_c.txt\"; filename*=UTF-8''a%22b%3Bc.txt"),
        ("été ☂.log", "attachment; filename=\"_t___.log\"; filename*=UTF-8''%C3%A9t%C3%A9%20%E2%98%82.log"),
    ],
)
def test_a_download_has_the_name_of_its_file_whatever_that_holds(name: str, says: str) -> None:
    header: Any = headers_for(name, "file", SHA)["content-disposition"]

    assert header == says
    assert header.isascii()
