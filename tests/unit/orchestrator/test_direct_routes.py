"""A direct route answers exactly as FastAPI would have, whatever is sent to it."""

from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from pydantic import BaseModel, Field
from starlette.testclient import TestClient

from common.errors import Conflict
from orchestrator.http import errors
from orchestrator.http.context import RequestContext
from orchestrator.http.direct import CannotBeDirect, DirectRoutes, Plan, direct, direct_routes
from orchestrator.http.strict import NOTHING_IS_DROPPED, ReadBodies

pytestmark = pytest.mark.path_internals

TRACE = {"x-trace-id": "6f2d3a5e-0a53-4c65-9a1b-6f0a52f5f0c1"}


class Order(BaseModel):
    name: str = Field(min_length=1)
    number: int | None = Field(default=None, ge=1)


class Answer(BaseModel):
    text: str
    number: int | None = None


async def greeting(request: Request) -> str:
    return f"hello from {request.url.path}"


async def method(request: Request) -> str:
    return request.method


def in_a_thread(request: Request) -> str:
    return request.method


async def guard(request: Request) -> str:
    if request.headers.get("x-refused"):
        raise Conflict("Not you.")
    return "its value is nobody's argument"


Greeting = Annotated[str, Depends(greeting)]
Method = Annotated[str, Depends(method)]


def app(*, is_direct: bool) -> FastAPI:
    made = FastAPI(dependencies=[NOTHING_IS_DROPPED])
    errors.install(made)
    hot: dict[tuple[str, str], Plan] = {}
    if is_direct:
        made.add_middleware(DirectRoutes, routes=hot)
    made.add_middleware(ReadBodies)
    made.add_middleware(RequestContext, on_error=errors.unexpected)
    router = APIRouter(prefix="/api")

    @router.post("/order", response_model_exclude_none=True, dependencies=[Depends(guard)])
    @direct
    async def order(wanted: Order, request: Request, first: Greeting, second: Method) -> Answer:
        if wanted.name == "taken":
            raise Conflict("It is taken.")
        if wanted.name == "broken":
            raise RuntimeError("broken")
        return Answer(text=f"{first}, {second}, {wanted.name} ({request.url.path})", number=wanted.number)

    made.include_router(router)
    hot.update(direct_routes(made))
    return made


def answers(*chunks: bytes, kind: str = "application/json") -> list[tuple[int, bytes, str]]:
    """Return the answer of the direct route, and that of FastAPI; several chunks are sent without a length."""
    found = []
    for is_direct in (True, False):
        client = TestClient(app(is_direct=is_direct), raise_server_exceptions=False)
        content = chunks[0] if len(chunks) == 1 else iter(chunks)
        answer = client.post("/api/order", content=content, headers={"content-type": kind, **TRACE})
        found.append((answer.status_code, answer.content, answer.headers["content-type"]))
    return found


@pytest.mark.parametrize(
    "content",
    [
        b'{"name":"a"}',
        '{"name":"ä☂","number":3}'.encode(),
        b'{"name":"a","number":"3"}',
        b'{"name":"a","number":3.0}',
        b'{"name":"a","number":0}',
        b'{"name":"a","number":NaN}',
        b'{"name":""}',
        b'{"name":"\\ud800"}',
        b'{"name":"taken"}',
        b'{"name":"broken"}',
        b"[]",
        b"null",
        b"{",
        b"",
        b"\xff\xfe",
    ],
)
def test_a_body_gets_the_same_answer_with_and_without_the_framework(content: bytes) -> None:
    ours, theirs = answers(content)

    assert ours == theirs


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=utf-8", "application/problem+json"])
def test_another_content_type_gets_the_same_answer(kind: str) -> None:
    ours, theirs = answers(b'{"name":"a"}', kind=kind)

    assert ours == theirs


def test_a_body_in_chunks_is_put_together() -> None:
    ours, theirs = answers(b'{"name"', b':"a"}')

    assert ours == theirs
    assert ours[0] == 200


def test_a_replaced_dependency_is_asked_in_its_place() -> None:
    made = app(is_direct=True)
    made.dependency_overrides[greeting] = lambda: "somebody else"

    answer = TestClient(made).post("/api/order", json={"name": "a"})

    assert answer.json()["text"].startswith("somebody else, ")


def test_a_dependency_that_would_run_in_a_thread_is_none_of_a_direct_route() -> None:
    made = FastAPI()

    @made.post("/order")
    @direct
    async def order(wanted: Order, word: Annotated[str, Depends(in_a_thread)]) -> Answer:
        return Answer(text=word + wanted.name)

    with pytest.raises(CannotBeDirect, match="coroutines"):
        direct_routes(made)


def test_a_route_that_needs_more_than_its_body_and_the_request_cannot_be_direct() -> None:
    made = FastAPI()

    @made.post("/order")
    @direct
    async def order(wanted: Order, much: Annotated[int, Query()] = 1) -> Answer:
        return Answer(text=wanted.name, number=much)

    with pytest.raises(CannotBeDirect, match="/order"):
        direct_routes(made)


def test_a_dependency_that_is_no_argument_is_asked_all_the_same() -> None:
    client = TestClient(app(is_direct=True))

    answer = client.post("/api/order", json={"name": "a"}, headers={"x-refused": "yes"})

    assert answer.json()["detail"] == "Not you."
