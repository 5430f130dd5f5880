"""Bodies and queries that no schema describes: text that is broken, too deep, too long or too large."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import hypothesis
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.bounds import SEED, bounded
from tests.fuzz.running import Running
from tests.fuzz.shapes import check_answer
from tests.openapi import DOCUMENT, json_body

pytestmark = pytest.mark.xdist_group("orchestrator")

MEGABYTE = 1024 * 1024
PATHS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]
POSTS = sorted(path for method, path in PATHS if method == "post")
WITH_BODY = sorted(path for method, path in PATHS if json_body(DOCUMENT["paths"][path][method]) is not None)


def _dispatch(value: str) -> bytes:
    """Return a dispatch, as text, with anything for the message."""
    parameters = f'{{"message": {value}}}'
    return f'{{"task_id": "{uuid4()}", "work_type": "echo", "parameters": {parameters}}}'.encode(
        "utf-8", "surrogatepass"
    )


HOSTILE = {
    "nothing": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"task_id": "\xff\xfe"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NUL bytes": b"\x00" * 100,
    "an escaped NUL": _dispatch('"a\\u0000b"'),
    "a lone surrogate": _dispatch('"\\ud800"'),
    "a raw surrogate": _dispatch('"\ud800"'),
    "NaN": _dispatch("NaN"),
    "infinity": _dispatch("-Infinity"),
    "a number beyond floats": _dispatch("1e999999"),
    "a number of many digits": _dispatch("9" * 5000),
    "a number beyond 53 bits": _dispatch(str(2**53)),
    "lists in lists": _dispatch("[" * 100_000 + "]" * 100_000),
    "objects in objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "the same name twice": b'{"task_id": 1, "task_id": 2}',
    "a list": b"[]",
    "null": b"null",
    "a string": b'"task"',
    "a number": b"1",
    "many fields": json.dumps({str(number): number for number in range(10_000)}).encode(),
}
LARGE = {
    "ten megabytes of text": _dispatch(json.dumps("x" * 10 * MEGABYTE)),
    "ten megabytes of nothing": b" " * 10 * MEGABYTE,
}
QUERIES = (
    "limit=-1",
    "limit=9" + "9" * 400,
    "limit=NaN",
    "limit=1&limit=2",
    "offset=1e3",
    "after=%00",
    "cursor=%ff%fe",
    "name=%00",
    "service=web%00",
    "label=a%3D%00",
    "requested_by=%00",
    "actor=%00",
    "status=%F0%9F%92%A9",
    "created_after=9999-12-31T23:59:59%2B14:00",
    "created_after=0001-01-01T00:00:00-14:00",
    "created_after=-1",
    "created_after=1e400",
    "trace_id=%ed%a0%80",
    "agent_type[]=a",
    "&&&=&=",
    "%",
)
HEADERS = ("x-trace-id", "accept", "content-encoding", "origin", "x-forwarded-for", "cookie", "expect-nothing")


@pytest.fixture(scope="module")
def session() -> Any:
    with requests.Session() as opened:
        yield opened


def _with_ids(path: str) -> str:
    while "{" in path:
        begin, end = path.index("{"), path.index("}")
        path = path[:begin] + ("1" if path[begin:end] == "{letter_id" else str(uuid4())) + path[end + 1 :]
    return path


def _send(session: requests.Session, method: str, url: str, **rest: Any) -> None:
    response = session.request(method, url, timeout=60, **rest)
    check_answer(response.status_code, response.headers.get("content-type", ""), response.content)


@pytest.mark.parametrize("path", WITH_BODY)
def test_a_hostile_body_is_answered_in_the_one_shape(
    orchestrator: Running, session: requests.Session, path: str
) -> None:
    for name, body in HOSTILE.items():
        print(name)
        url = orchestrator.http + _with_ids(path)
        _send(session, "post", url, data=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("path", POSTS)
def test_a_body_of_another_type_is_answered_in_the_one_shape(
    orchestrator: Running, session: requests.Session, path: str
) -> None:
    for content_type in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "é"):
        headers = {"content-type": content_type.encode("latin-1")}
        _send(session, "post", orchestrator.http + _with_ids(path), data=b"a=b", headers=headers)


@pytest.mark.parametrize("body", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("path", ["/api/v1/dispatch", "/api/v1/dispatch/batch"])
def test_a_body_that_is_too_large_is_refused_in_the_one_shape(orchestrator: Running, path: str, body: bytes) -> None:
    _send_too_much(orchestrator, path, body)


def test_a_body_without_a_length_is_refused_when_it_grows_too_large(orchestrator: Running) -> None:
    _send_too_much(orchestrator, "/api/v1/dispatch", (b" " * MEGABYTE for _ in range(10)))


def _send_too_much(orchestrator: Running, path: str, body: bytes | Iterator[bytes]) -> None:
    with requests.Session() as session:
        try:
            response = session.post(orchestrator.http + path, data=body, timeout=60)
        except requests.exceptions.RequestException:
            return  # a sender that does not stop may find the connection closed before it reads the answer
        assert response.status_code == 413
        check_answer(response.status_code, response.headers["content-type"], response.content)


@pytest.mark.parametrize("path", sorted(path for method, path in PATHS if method == "get"))
def test_a_hostile_query_is_answered_in_the_one_shape(
    orchestrator: Running, session: requests.Session, path: str
) -> None:
    for query in QUERIES:
        if path != "/ready" or query == QUERIES[0]:  # it asks everything that is needed, and has no query
            _send(session, "get", f"{orchestrator.http}{_with_ids(path)}?{query}")


@pytest.mark.parametrize(
    "part",
    ["%00", "%ff", "..%2f..%2fetc", "0", "-1", "9" * 50, "{}", "%F0%9F%92%A9", "a" * 5000, "urn:uuid:" + "0" * 32],
)
def test_a_hostile_id_in_a_path_is_answered_in_the_one_shape(
    orchestrator: Running, session: requests.Session, part: str
) -> None:
    for method, path in PATHS:
        if "{" in path:
            name = path[path.index("{") : path.index("}") + 1]
            _send(session, method, orchestrator.http + path.replace(name, part))


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_a_method_that_nothing_offers_is_answered_in_the_one_shape(
    orchestrator: Running, session: requests.Session, method: str
) -> None:
    for path in (*POSTS, "/", "/nowhere", "//", "/api/v1/", "/ws/1"):
        _send(session, method, orchestrator.http + _with_ids(path))


def test_any_bytes_for_a_body_and_any_text_for_a_query_and_headers_are_answered(
    orchestrator: Running, session: requests.Session
) -> None:
    text = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f\x85\xa0"), max_size=40)
    headers = st.dictionaries(st.sampled_from(HEADERS), text)

    @hypothesis.seed(SEED)
    @bounded(50)
    @given(st.sampled_from(PATHS), st.binary(max_size=200), st.text(max_size=50), headers)
    def send(where: tuple[str, str], body: bytes, query: str, given_headers: dict[str, str]) -> None:
        sent = {name: value.encode("latin-1") for name, value in given_headers.items()}
        _send(
            session,
            where[0],
            orchestrator.http + _with_ids(where[1]),
            data=body,
            params={"q": query, "cursor": query, "limit": query},
            headers={**sent, "content-type": b"application/json"},
        )

    send()


def test_after_all_that_it_still_works(orchestrator: Running, session: requests.Session) -> None:
    task_id = str(uuid4())
    answer = session.post(
        f"{orchestrator.http}/api/v1/dispatch", json={"task_id": task_id, "work_type": "echo"}, timeout=30
    )

    assert answer.json()["task_id"] == task_id
    assert session.get(f"{orchestrator.http}/ready", timeout=30).json()["checks"]["loops"]["ok"]
