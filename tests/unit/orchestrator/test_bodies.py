"""A body that an endpoint validates gets the answers of one that FastAPI validates, and the same documentation."""

import json
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, Field
from starlette.testclient import TestClient

from common.errors import Conflict
from orchestrator.http import bodies, errors
from orchestrator.http.context import RequestContext
from orchestrator.http.strict import NOTHING_IS_DROPPED, ReadBodies

TRACE = {"x-trace-id": "6f2d3a5e-0a53-4c65-9a1b-6f0a52f5f0c1"}


class Part(BaseModel):
    """A part of an order."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="Its name.")


class Order(BaseModel):
    """Something that is wanted."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="What it is called.")
    number: int | None = Field(default=None, ge=1)
    parts: list[Part] = Field(default_factory=list, max_length=30)


class Answer(BaseModel):
    """What became of an order."""

    text: str
    number: int | None = None


async def guard(request: Request) -> str:
    if request.headers.get("x-refused"):
        raise Conflict("Not you.")
    return "a caller"


Guarded = Annotated[str, Depends(guard)]


def answer_to(wanted: Order, caller: str) -> Answer:
    if wanted.name == "taken":
        raise Conflict("It is taken.")
    if wanted.name == "broken":
        raise RuntimeError("broken")
    return Answer(text=f"{wanted.name} for {caller}", number=wanted.number)


def app(*, is_read_by_endpoint: bool) -> FastAPI:
    made = FastAPI(dependencies=[NOTHING_IS_DROPPED], generate_unique_id_function=lambda route: route.name)
    errors.install(made)
    made.add_middleware(ReadBodies)
    made.add_middleware(RequestContext, on_error=errors.unexpected)
    if is_read_by_endpoint:
        extra = bodies.documented(Order)
        made.post("/order", name="order", response_model=Answer, openapi_extra=extra)(validated_here)
    else:
        made.post("/order", name="order")(validated_by_fastapi)
    return made


async def validated_here(request: Request, caller: Guarded) -> Response:
    answer = answer_to(bodies.validated(request, Order), caller)
    return Response(answer.model_dump_json(), media_type="application/json")


async def validated_by_fastapi(wanted: Order, caller: Guarded) -> Answer:
    return answer_to(wanted, caller)


OURS, FASTAPIS = (
    TestClient(app(is_read_by_endpoint=choice), raise_server_exceptions=False) for choice in (True, False)
)


def answers(*chunks: bytes, path: str = "/order", **headers: str) -> list[tuple[int, bytes, dict[str, str]]]:
    """Return the answers of both routes; several chunks are sent without a length."""
    found = []
    for client in (OURS, FASTAPIS):
        content = chunks[0] if len(chunks) == 1 else iter(chunks)
        answer = client.post(path, content=content, headers={"content-type": "application/json", **TRACE, **headers})
        found.append((answer.status_code, answer.content, dict(answer.headers)))
    return found


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"name":"a"}', 200),
        ('{"name":"ä☂","number":3}'.encode(), 200),
        (b'\xef\xbb\xbf{"name":"a"}', 200),
        (b'{"name":"a","number":"3"}', 200),
        (b'{"name":"a","number":3.0}', 200),
        (b'{"name":"a","number":0}', 422),
        (b'{"name":"a","number":NaN}', 422),
        (b'{"name":"a","number":1e400}', 422),
        (b'{"name":"a","nubmer":1}', 422),
        (b'{"name":"a","name":"b"}', 422),
        (b'{"name":"a","parts":[{"name":"b"},{"name":""},{"nmae":"c"}]}', 422),
        (json.dumps({"name": "a", "parts": [{}] * 30}).encode(), 422),
        (b'{"name":""}', 422),
        (b'{"name":"\\ud800"}', 422),
        (b'{"name":"taken"}', 400),
        (b'{"name":"broken"}', 500),
        (b"{}", 422),
        (b"[]", 422),
        (b'"name"', 422),
        (b"null", 422),
        (b"{", 422),
        (b"", 422),
        (b"\xff\xfe", 422),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_body_gets_the_answer_that_fastapi_gives(content: bytes, status: int) -> None:
    ours, theirs = answers(content)

    assert ours == theirs
    assert ours[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": ""}, 415),
        ({"content-type": "application/problem+json"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-encoding": "gzip"}, 415),
        ({"x-refused": "yes"}, 400),
    ],
    ids=str,
)
def test_a_request_with_other_headers_gets_the_answer_that_fastapi_gives(headers: dict[str, str], status: int) -> None:
    ours, theirs = answers(b'{"name":"a"}', **headers)

    assert ours == theirs
    assert ours[0] == status


def test_who_may_not_ask_hears_so_before_the_body_is_validated() -> None:
    ours, theirs = answers(b'{"name":""}', **{"x-refused": "yes"})

    assert ours == theirs
    assert ours[0] == 400


def test_a_parameter_that_is_not_known_is_refused() -> None:
    ours, theirs = answers(b'{"name":"a"}', path="/order?number=1")

    assert ours == theirs
    assert ours[0] == 422


def test_a_body_in_chunks_is_put_together() -> None:
    ours, theirs = answers(b'{"name"', b':"a"}')

    assert ours == theirs
    assert ours[0] == 200


def test_a_body_is_documented_as_fastapi_documents_it() -> None:
    ours, theirs = (_document(client.app) for client in (OURS, FASTAPIS))

    assert json.dumps(bodies.schemas_shared(ours)) == json.dumps(theirs)


def _document(made: Any) -> dict[str, Any]:
    document = get_openapi(title="", version="1", routes=made.routes)
    # FastAPI documents a 422 of its own for a body that it validates; our routes have one of ours.
    [operation] = document["paths"]["/order"].values()
    operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document
