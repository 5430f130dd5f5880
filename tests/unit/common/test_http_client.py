"""A client trusts the known authorities where something is encrypted, and never believes a certificate otherwise."""

import asyncio
import gzip
import ssl

import httpx2
import pytest

from common.http_client import client_options, trust_for


def test_over_https_the_known_authorities_are_trusted() -> None:
    assert trust_for("https://chiffon.example").get_ca_certs()


def test_a_client_of_plain_http_would_believe_no_certificate() -> None:
    trust = trust_for("http://127.0.0.1:8080")

    assert not trust.get_ca_certs()
    assert trust.verify_mode is ssl.CERT_REQUIRED
    assert trust.check_hostname


async def test_a_compressed_answer_is_not_read() -> None:
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        body = gzip.compress(bytes(1_000_000))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with httpx2.AsyncClient(**client_options(url)) as client:
            with pytest.raises(httpx2.RemoteProtocolError, match="compressed"):
                await client.get("/api/v1/tasks")

    assert "accept-encoding: identity" in asked[0]
