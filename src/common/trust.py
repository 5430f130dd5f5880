"""Whose certificates a client of HTTP trusts."""

import ssl
from urllib.parse import urlsplit

import httpx2


def trust_for(url: str) -> ssl.SSLContext:
    """Return the authorities to trust at a URL: those that SSL_CERT_FILE names, also where no proxy is asked.

    Where nothing is encrypted, nobody: to load them takes longer than the request.
    """
    if urlsplit(url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx2.create_ssl_context()
