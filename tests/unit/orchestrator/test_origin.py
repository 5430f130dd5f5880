"""Which web pages are from here: those whose origin is this very address, and no other."""

from typing import Any
from unittest.mock import AsyncMock

import pytest

from orchestrator.http.origin import OwnPagesOnly, is_foreign

HOST = "chiffon.example:8420"


@pytest.mark.parametrize("origin", [f"http://{HOST}", f"https://{HOST}"])
def test_a_page_from_here_and_a_program_are_not_foreign(origin: str) -> None:
    assert not is_foreign({"origin": origin, "host": HOST})
    assert not is_foreign({"host": HOST})


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        f"https://{HOST}.evil.example",
        f"https://evil.{HOST}",
        f"https://evil{HOST}",
        "https://chiffon.example:8421",
        "https://chiffon.example",
        f"https://evil@{HOST}",
        f"https://{HOST}@evil.example",
        f"https://{HOST}/",
        f"https://{HOST}/@evil.example",
        f"https://{HOST} https://evil.example",
        f"file://{HOST}",
        f"//{HOST}",
        HOST,
        "https://[",
    ],
)
def test_whatever_only_looks_like_this_place_is_foreign(origin: str) -> None:
    assert is_foreign({"origin": origin, "host": HOST})
    assert is_foreign({"origin": origin})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "127.0.0.1.evil.example",
        "[",
        "localhost@evil",
        "evil@localhost",
        "evil\\@localhost",
        "localhost/evil",
        "localhost#evil",
        "localhost:evil",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_on_loopback_no_other_name_is_served(host: str, kind: str) -> None:
    async def app(*_: object) -> None:
        raise AssertionError("it was served")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "method": "GET", "path": "/", "headers": [(b"host", host.encode())], "state": {}}
    await OwnPagesOnly(app, loopback_only=True)(scope, receive, send)

    assert sent[0].get("status", sent[0].get("code")) in {403, 1008}


@pytest.mark.parametrize(
    ("kind", "method", "served"),
    [("websocket", None, False), ("http", "POST", False), ("http", "DELETE", False), ("http", "GET", True)],
)
async def test_a_page_of_somebody_else_opens_no_websocket_and_sends_nothing_but_reading(
    kind: str, method: str | None, served: bool
) -> None:
    reached: list[str] = []

    async def app(scope: Any, *_: object) -> None:
        reached.append(scope["type"])

    headers = [(b"host", HOST.encode()), (b"origin", b"https://evil.example")]
    scope = {"type": kind, "path": "/", "headers": headers, "state": {}} | (
        {} if method is None else {"method": method}
    )
    sent = AsyncMock()
    await OwnPagesOnly(app, loopback_only=False)(scope, AsyncMock(), sent)

    assert reached == ([kind] if served else [])
    if not served:
        first = sent.call_args_list[0].args[0]
        assert first.get("status", first.get("code")) in {403, 1008}
