"""How large a body may be, whether its length is announced or not, and how much all bodies hold together."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from orchestrator.http import limits
from orchestrator.http.limits import IS_SMALL, BodyLimit

LARGEST = 1000


class Client:
    """Sends a body in pieces, as they are asked for, and remembers what it is answered."""

    def __init__(self, *pieces: bytes, path: str = "/api/v1/dispatch", length: int | None = None, small: bool = False):
        self._pieces = list(pieces)
        self.asked_for = 0
        self.answers: list[Message] = []
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        app = SimpleNamespace(state=SimpleNamespace(max_body_bytes=LARGEST))
        self.scope: dict[str, Any] = {"type": "http", "path": path, "headers": headers, "app": app, "state": {}}
        self.scope["state"][IS_SMALL] = small

    async def receive(self) -> Message:
        self.asked_for += 1
        if not self._pieces:
            return {"type": "http.disconnect"}
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def send(self, message: Message) -> None:
        self.answers.append(message)

    @property
    def statuses(self) -> list[int]:
        return [one["status"] for one in self.answers if one["type"] == "http.response.start"]


class App:
    """Reads whole bodies, and answers when it may."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.bodies: list[bytes] = []
        self.called = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.called += 1
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def limited(app: App, monkeypatch: pytest.MonkeyPatch) -> BodyLimit:
    monkeypatch.setattr(limits, "LARGEST_BODIES", 2)
    return BodyLimit(app, public={"/api/v1/enrol"})


async def sent(limited: BodyLimit, client: Client) -> list[int]:
    """Have a request served and return the statuses that it is answered with."""
    await limited(client.scope, client.receive, client.send)
    return client.statuses


async def test_a_body_that_is_announced_as_too_large_reaches_no_application(app: App, limited: BodyLimit) -> None:
    within, beyond = Client(b"x" * LARGEST, length=LARGEST), Client(b"x" * (LARGEST + 1), length=LARGEST + 1)

    assert [await sent(limited, client) for client in (within, beyond)] == [[200], [413]]
    assert app.called == 1


async def test_a_body_that_grows_too_large_piece_by_piece_is_refused_and_not_handed_on(
    app: App, limited: BodyLimit
) -> None:
    within, beyond = Client(b"x" * 600, b"x" * 400), Client(b"x" * 600, b"x" * 400, b"x")

    assert [await sent(limited, client) for client in (within, beyond)] == [[200], [413]]
    assert app.bodies == [b"x" * LARGEST]


@pytest.mark.parametrize(
    ("most", "where"),
    [("MOST_PUBLIC_BYTES", {"path": "/api/v1/enrol"}), ("MOST_SMALL_BYTES", {"small": True})],
    ids=["of a stranger", "of a caller without work"],
)
async def test_a_body_without_a_token_or_of_a_caller_who_hands_nothing_in_is_smaller(
    app: App, limited: BodyLimit, monkeypatch: pytest.MonkeyPatch, most: str, where: dict[str, Any]
) -> None:
    monkeypatch.setattr(limits, most, 100)

    answers = [
        await sent(limited, Client(b"x" * size, length=length, **where))
        for size in (100, 101)
        for length in (size, None)
    ]

    assert answers == [[200], [200], [413], [413]]
    assert [len(body) for body in app.bodies] == [100, 100]


@pytest.mark.parametrize("is_announced", [True, False])
async def test_all_bodies_share_a_budget_that_is_free_again_when_they_are_answered(
    app: App, limited: BodyLimit, is_announced: bool
) -> None:
    app.may_answer.clear()
    held = [Client(b"x" * LARGEST, length=LARGEST) for _ in range(2)]
    serving = [asyncio.ensure_future(sent(limited, client)) for client in held]
    async with asyncio.timeout(10):
        while len(app.bodies) < 2:
            await asyncio.sleep(0)

    refused = Client(b"xx", length=2 if is_announced else None)
    async with asyncio.timeout(5):
        assert await sent(limited, refused) == [503]
    assert (b"retry-after", b"1") in refused.answers[0]["headers"]
    # What is announced is refused before it is read.
    assert app.called == (2 if is_announced else 3)
    assert len(app.bodies) == 2
    app.may_answer.set()
    assert await asyncio.gather(*serving) == [[200], [200]]
    assert await sent(limited, Client(b"x" * LARGEST, length=LARGEST)) == [200]
