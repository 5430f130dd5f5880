"""The proxy of the environment is asked for servers elsewhere, and for nothing on this host or named by NO_PROXY."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from chiffon import ApiError, Client, ServerUnreachable
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator

ELSEWHERE = "chiffon.example"
TIME_LIMIT = 10


@dataclass
class Proxy:
    """Passes nothing on, and notes what it was asked."""

    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0])
            writer.write(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
        writer.close()


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """The proxy that the environment names, and no other."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    proxy = Proxy()
    async with await asyncio.start_server(proxy.refuse, "127.0.0.1", 0) as server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        yield proxy


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the name of the server elsewhere lead to this host, where it is looked up."""
    real = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host in (ELSEWHERE, ELSEWHERE.encode()) else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


async def test_a_server_elsewhere_is_asked_through_the_proxy_of_the_environment(proxy: Proxy) -> None:
    async with Client(f"http://{ELSEWHERE}") as client:
        with pytest.raises(ApiError) as refused:
            await client.agents()

    assert refused.value.status == 403
    assert proxy.asked == [f"GET http://{ELSEWHERE}/api/v1/agents HTTP/1.1"]


async def test_a_server_elsewhere_is_followed_through_the_proxy_of_the_environment(proxy: Proxy) -> None:
    async with Client(f"http://{ELSEWHERE}") as client, asyncio.timeout(TIME_LIMIT):
        with pytest.raises(ServerUnreachable):
            await anext(client.watch())

    assert set(proxy.asked) == {f"CONNECT {ELSEWHERE}:80 HTTP/1.1"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_no_proxy_is_asked_for_a_server_on_this_host(
    fake: FakeOrchestrator, url: str, proxy: Proxy, host: str
) -> None:
    await answered_and_followed(fake, f"http://{host}:{urlsplit(url).port}")

    assert proxy.asked == []


@pytest.mark.usefixtures("here")
async def test_no_proxy_is_asked_for_a_host_that_no_proxy_names(
    fake: FakeOrchestrator, url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", f"other.example,{ELSEWHERE}")

    await answered_and_followed(fake, f"http://{ELSEWHERE}:{urlsplit(url).port}")

    assert proxy.asked == []


async def answered_and_followed(fake: FakeOrchestrator, url: str) -> None:
    """Have a request answered, and a feed opened, at a URL."""
    task_id = str(uuid4())
    fake.add_task(task_id)
    async with Client(url) as client, asyncio.timeout(TIME_LIMIT):
        assert await client.agents() == []
        assert (await client.wait(task_id)).is_final
