"""A request shows whether a service works: its status counts, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from agents.repairs.probe import open_probe
from common.compose import HealthCheck
from tests.services.ports import free_ports


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve one answer to all requests; None: never answer. Yield the address, and what was asked."""
    asked: list[bytes] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/health", asked
    finally:
        over.set()
        server.close()
        await server.wait_closed()


async def problem_at(url: str, *, within: float = 5.0, **check: object) -> str | None:
    given = HealthCheck.model_validate({"url": url, **check})
    async with open_probe(given) as probe:
        assert probe is not None
        return await probe.problem(within=within)


async def test_the_expected_status_is_no_problem() -> None:
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as (url, asked):
        assert await problem_at(url, expected_status=204, method="HEAD") is None
        assert asked[0].startswith(b"HEAD /health HTTP/1.1\r\n")


async def test_another_status_is_named() -> None:
    async with answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n") as (url, _):
        assert await problem_at(url) == f"GET {url} gave 503, and 200 was expected."


async def test_a_redirect_is_not_followed() -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer) as (url, _):
        assert "gave 302" in (await problem_at(url) or "")


@pytest.mark.parametrize("answer", [None, b"no HTTP\r\n\r\n", b""])
async def test_what_is_no_answer_is_a_problem(answer: bytes | None) -> None:
    async with answering(answer) as (url, _):
        assert "gave no answer" in (await problem_at(url, within=0.1) or "")


async def test_an_answer_that_drips_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.repairs.http_probe.SHORTEST_REQUEST", 0.1)

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"X-More: and more\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with asyncio.timeout(10):
            assert await problem_at(url, within=0.1) == f"GET {url} gave no answer: it took longer than 0.1 seconds."


async def test_a_port_that_nobody_listens_on_is_a_problem() -> None:
    [port] = free_ports(1)

    assert "gave no answer" in (await problem_at(f"http://127.0.0.1:{port}/") or "")


async def test_what_the_answer_holds_is_not_read() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nbegins"
    async with answering(endless) as (url, _):
        assert await problem_at(url) is None


async def test_without_a_health_check_there_is_no_probe() -> None:
    async with open_probe(None) as probe:
        assert probe is None
