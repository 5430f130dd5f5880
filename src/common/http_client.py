"""How clients reach an HTTP server: whose certificates they trust, when they ask a proxy, which answers they read."""

import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx2

from common.urls import is_own_host


def is_loopback(url: str) -> bool:
    """Return whether a URL points to this host, where a proxy from the environment must not be asked."""
    return is_own_host(urlsplit(url).hostname or "")


def client_options(url: str) -> dict[str, Any]:
    """Return the arguments of an `httpx2.AsyncClient` for the server at a URL.

    Compressed answers are refused: a small one may hold gigabytes.
    """
    return {
        "base_url": url,
        "verify": trust_for(url),
        "trust_env": not is_loopback(url),
        "event_hooks": {"request": [_ask_for_plain], "response": [_refuse_compressed]},
    }


def trust_for(url: str) -> ssl.SSLContext:
    """Return the authorities to trust at a URL: those that SSL_CERT_FILE names, also where no proxy is asked.

    Where nothing is encrypted, nobody: to load them takes longer than the request.
    """
    if urlsplit(url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx2.create_ssl_context()


async def _ask_for_plain(request: httpx2.Request) -> None:
    request.headers["accept-encoding"] = "identity"


async def _refuse_compressed(response: httpx2.Response) -> None:
    coding = response.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise httpx2.RemoteProtocolError(f"The answer is compressed ({coding[:20]!r}), which was not asked for.")
