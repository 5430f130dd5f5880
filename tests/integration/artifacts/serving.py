"""The routes of artifacts behind the door and all that stands before a route, as the orchestrator serves them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx2
from fastapi import FastAPI
from starlette.types import Message, Scope

from orchestrator.artifacts import api
from orchestrator.artifacts.links import LinkKeeper
from orchestrator.artifacts.streams import Streams
from orchestrator.http import errors
from orchestrator.http.context import RequestContext
from orchestrator.http.head import HeadIsGet
from orchestrator.http.limits import BodyLimit
from orchestrator.http.strict import NOTHING_IS_DROPPED, ReadBodies
from orchestrator.identities.access import check_routes
from orchestrator.identities.door import Door
from orchestrator.identities.model import Caller, Unauthenticated
from tests.integration.artifacts.keeping import Keeping

MAX_BODY_BYTES = 1024


class Tokens:
    """Knows callers by their names, which they send as tokens."""

    sessions = None

    def __init__(self, *callers: Caller) -> None:
        self._callers = {caller.name: caller for caller in callers}

    async def admit(self, scope: Scope) -> Caller:
        sent = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
        if sent not in self._callers:
            raise Unauthenticated("This needs a token.")
        return self._callers[sent]


def app_of(kept: Keeping, *callers: Caller) -> FastAPI:
    """Return an app that serves artifacts to these callers."""
    app = FastAPI(dependencies=[NOTHING_IS_DROPPED], openapi_url=None, docs_url=None, redoc_url=None)
    app.state.keeper = LinkKeeper(Tokens(*callers), kept.parts.links)
    app.state.artifacts = kept.parts
    app.state.max_body_bytes = MAX_BODY_BYTES
    errors.install(app)
    app.add_middleware(HeadIsGet)
    app.add_middleware(ReadBodies)
    app.add_middleware(BodyLimit, public=())
    app.add_middleware(Streams)
    app.add_middleware(Door, public=(), detailed=())
    app.add_middleware(RequestContext, on_error=errors.unexpected)
    app.include_router(api.router)
    check_routes(app)
    return app


@asynccontextmanager
async def client_of(app: FastAPI, caller: Caller | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client that sends the token of a caller, or none."""
    headers = {} if caller is None else {"authorization": f"Bearer {caller.name}"}
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://orchestrator", headers=headers) as client:
        yield client


async def cut_off(app: FastAPI, caller: Caller, path: str, *pieces: bytes) -> list[Message]:
    """Send the pieces of a body that never ends, and go away; return what was answered."""
    left, answers = list(pieces), list[Message]()

    async def receive() -> Message:
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    async def send(message: Message) -> None:
        answers.append(message)

    headers = [
        (b"authorization", f"Bearer {caller.name}".encode()),
        (b"content-type", b"application/octet-stream"),
        (b"x-trace-id", str(uuid4()).encode()),
    ]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    more = {"headers": headers, "scheme": "http", "server": ("orchestrator", 80), "client": ("127.0.0.1", 1)}
    await app({**scope, **more, "root_path": "", "http_version": "1.1", "asgi": {"version": "3.0"}}, receive, send)
    return answers
