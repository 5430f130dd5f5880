"""What a browser is told with every answer, and that the pages of the documentation load nothing from elsewhere."""

import socket
from html.parser import HTMLParser
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from common.version import VERSION
from orchestrator.main import create_app
from tests.fuzz.running import Running

PROTECTIVE = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
JSON = {"content-type": "application/json"}


class Page(HTMLParser):
    """What a page loads, and the scripts and styles that stand in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.loads += [value for name, value in given.items() if name in ("src", "href") and value]
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def check(headers: Any) -> None:
    assert {name: headers[name] for name in PROTECTIVE} == PROTECTIVE
    assert headers["content-security-policy"].startswith("default-src 'self'; ")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "/health", {}, 200),
        ("HEAD", "/ready", {}, None),
        ("GET", "/docs", {}, 200),
        ("GET", "/openapi.json", {}, 200),
        ("GET", "/nowhere", {}, 404),
        ("PUT", "/api/v1/tasks", {}, 405),
        ("GET", "/api/v1/tasks?unknown=1", {}, 422),
        ("POST", "/api/v1/dispatch", {"data": "x", "headers": {"origin": "https://evil.example"}}, 403),
        ("GET", "/api/v1/tasks", {"headers": {"host": "evil.example"}}, 403),
        ("POST", "/api/v1/enrol", {"data": " " * 5000, "headers": JSON}, 413),
        ("GET", "/health", {"headers": {"x": "y" * 70_000}}, 431),
    ],
)
def test_every_answer_tells_browsers_to_load_nothing_from_elsewhere(
    orchestrator: Running, method: str, path: str, more: dict[str, Any], status: int | None
) -> None:
    answer = requests.request(method, orchestrator.http + path, timeout=30, **more)

    assert status is None or answer.status_code == status
    check(answer.headers)


@pytest.mark.parametrize(
    "sent",
    [
        b"FOO / HTTP/1.1\r\n\r\n",
        b"GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\r\n".join(
            [
                *(b"GET /api/v1/ws HTTP/1.1", b"Host: evil.example", b"Connection: upgrade", b"Upgrade: websocket"),
                *(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"", b""),
            ]
        ),
    ],
    ids=["no HTTP", "no WebSocket", "a WebSocket that is refused"],
)
def test_what_no_application_answers_tells_browsers_the_same(orchestrator: Running, sent: bytes) -> None:
    host, port = orchestrator.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as opened:
        opened.sendall(sent)
        answer = HTTPResponse(opened)
        answer.begin()

        assert answer.status in (400, 403)
        check({name.lower(): value for name, value in answer.getheaders()})


def test_the_documentation_loads_only_what_this_server_has_and_holds_no_script(orchestrator: Running) -> None:
    page = requests.get(f"{orchestrator.http}/docs", timeout=30)
    found = Page(page.text)

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert found.inline == []
    for place in found.loads:
        where = urljoin(page.url, place)
        assert where.startswith(f"{orchestrator.http}/docs/")
        assert requests.get(where, timeout=30).status_code == 200
    start = requests.get(f"{orchestrator.http}/docs/start.js", timeout=30).text
    assert 'url: "openapi.json"' in start
    assert "validatorUrl: null" in start
    document = requests.get(f"{orchestrator.http}/openapi.json", timeout=30)
    assert document.json() == create_app().openapi()
    assert VERSION not in document.text


@pytest.mark.parametrize(
    "path", ["/redoc", "/docs/oauth2-redirect", "/docs/redoc.standalone.js", "/docs/../settings.py"]
)
def test_no_other_page_is_served(orchestrator: Running, path: str) -> None:
    assert requests.get(orchestrator.http + path, timeout=30).status_code == 404
