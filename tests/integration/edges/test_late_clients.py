"""Clients that send too slowly, too much at once or read nothing: answered in the one shape, and cut off."""

import asyncio
import json
import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
from websockets.asyncio.client import connect

from chiffon.http import bearer
from common.rest.identities import Role
from orchestrator.http import connections, limits, protocol, tls
from orchestrator.http import strict as strict_bodies
from tests.fuzz.running import Running, running_orchestrator
from tests.fuzz.shapes import check_answer
from tests.integration.edges.conftest import token_of
from tests.services.certificates import Authority

LATE = 1.0
# The server looks once a second; a loaded machine is given more.
CUT_OFF_SECONDS = 30


@pytest.fixture(scope="module")
def strict(edges_ledger_url: str) -> Iterator[Running]:
    """An orchestrator that asks for tokens and has little patience."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "HEAD_SECONDS", LATE)
        patch.setattr(protocol, "BODY_SECONDS", LATE)
        patch.setattr(connections, "WRITE_SECONDS", LATE)
        patch.setattr(limits, "LARGEST_BODIES", 2)
        with running_orchestrator(
            edges_ledger_url, authentication="required", max_body_bytes=256 * 1024, failed_logins_per_second=10_000
        ) as running:
            yield running


@pytest.fixture(scope="module")
async def operator(edges_ledger_url: str) -> str:
    return await token_of(edges_ledger_url, Role.OPERATOR)


@pytest.fixture(scope="module")
async def viewer(edges_ledger_url: str) -> str:
    return await token_of(edges_ledger_url, Role.VIEWER)


def opened(orchestrator: Running) -> socket.socket:
    host, port = orchestrator.address.split(":")
    return socket.create_connection((host, int(port)), timeout=CUT_OFF_SECONDS)


def answer_of(connection: socket.socket) -> int:
    """Return the status of an error of the one shape, behind which the connection was closed."""
    answer = HTTPResponse(connection)
    answer.begin()
    if answer.status < 500:
        check_answer(answer.status, answer.getheader("content-type", ""), answer.read())
    assert answer.getheader("content-security-policy", "").startswith("default-src 'self'")
    return answer.status


def dribbled(connection: socket.socket) -> bytes:
    """Send a byte after the other until something comes back; empty when the connection was closed instead."""
    connection.settimeout(0.1)
    deadline = time.monotonic() + CUT_OFF_SECONDS
    while time.monotonic() < deadline:
        try:
            connection.sendall(b" ")
            return connection.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:
            return b""
    raise AssertionError("it is still open")


def dispatch(token: str | None, length: int) -> bytes:
    lines = ["POST /api/v1/dispatch HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [] if token is None else [f"Authorization: Bearer {token}"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def enrol(length: int) -> bytes:
    head = "POST /api/v1/enrol HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length}\r\n\r\n".encode()


def test_a_connection_that_asks_nothing_is_closed(strict: Running) -> None:
    with opened(strict) as silent:
        assert silent.recv(1) == b""


@pytest.mark.parametrize("begun", [b"GET /hea", b"GET /health HTTP/1.1\r\nHost: loc"])
def test_half_a_head_is_answered_with_408_also_behind_an_answer(strict: Running, begun: bytes) -> None:
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with opened(strict) as first, opened(strict) as second:
        first.sendall(begun)
        second.sendall(whole)
        answer = HTTPResponse(second)
        answer.begin()
        answer.read()
        second.sendall(begun)

        assert [answer_of(first), answer_of(second)] == [408, 408]


def test_a_head_that_goes_on_slowly_is_cut_off_all_the_same(strict: Running) -> None:
    with opened(strict) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nX: ")

        assert dribbled(slow).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [0, 1, 99])
def test_half_a_body_is_answered_with_408(strict: Running, operator: str, sent: int) -> None:
    with opened(strict) as of_caller, opened(strict) as of_stranger:
        of_caller.sendall(dispatch(operator, 100) + b" " * sent)
        of_stranger.sendall(enrol(100) + b" " * sent)

        assert [answer_of(of_caller), answer_of(of_stranger)] == [408, 408]


def test_a_body_that_goes_on_byte_by_byte_is_cut_off(strict: Running, operator: str) -> None:
    with opened(strict) as slow:
        slow.sendall(dispatch(operator, 100_000))

        assert dribbled(slow).startswith(b"HTTP/1.1 408 ")


def test_the_rest_of_a_body_that_was_refused_is_not_waited_for(strict: Running) -> None:
    with opened(strict) as refused:
        refused.sendall(dispatch(None, 100_000))
        assert answer_of(refused) == 401

        assert dribbled(refused) == b""


def test_a_body_of_a_stranger_is_small_or_refused_before_it_is_read(strict: Running) -> None:
    for length in (limits.MOST_PUBLIC_BYTES + 1, 10**15):
        with opened(strict) as stranger:
            stranger.sendall(enrol(length))
            assert answer_of(stranger) == 413
    with opened(strict) as growing:
        growing.sendall(enrol(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        growing.sendall(b"1001\r\n" + b" " * 0x1001 + b"\r\n0\r\n\r\n")
        assert answer_of(growing) == 413
    with opened(strict) as within:
        body = json.dumps({"token": "x"}).encode().ljust(limits.MOST_PUBLIC_BYTES)
        within.sendall(enrol(len(body)) + body)
        assert answer_of(within) == 403


@pytest.mark.parametrize("path", ["/api/v1/dispatch", "/api/queue/jobs", "/api/v1/tokens/claim"])
def test_a_body_of_a_caller_who_hands_nothing_in_is_small(
    strict: Running, monkeypatch: pytest.MonkeyPatch, viewer: str, path: str
) -> None:
    monkeypatch.setattr(limits, "MOST_SMALL_BYTES", 1000)

    def answered(size: int) -> int:
        body = b'{"x": 1}'.ljust(size)
        headers = {**bearer(viewer), "content-type": "application/json"}
        return requests.post(strict.http + path, data=body, headers=headers, timeout=30).status_code

    assert answered(1000) in (403, 422)
    assert answered(1001) == 413


def test_a_body_has_so_many_values_and_no_more_and_texts_do_not_count(
    strict: Running, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    monkeypatch.setattr(strict_bodies, "MOST_VALUES", 1000)

    def answered(payload: str) -> int:
        body = f'{{"type": "counted", "payload": {{"x": {payload}}}}}'
        headers = {**bearer(operator), "content-type": "application/json"}
        return requests.post(f"{strict.http}/api/queue/jobs", data=body, headers=headers, timeout=30).status_code

    for value in ("0", "[]", "{}"):
        assert answered(f"[{','.join([value] * 400)}]") == 201
        assert answered(f"[{','.join([value] * 1001)}]") == 422
    assert answered('"' + '[{,\\"' * 1001 + '"') == 201


def test_a_body_of_texts_without_an_end_takes_no_longer_than_it_is_long(strict: Running, operator: str) -> None:
    body = b',\\"' * 60_000
    headers = {**bearer(operator), "content-type": "application/json"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_bodies, "MOST_VALUES", 1000)
        began = time.monotonic()
        answer = requests.post(f"{strict.http}/api/queue/jobs", data=body, headers=headers, timeout=60)

    assert answer.status_code == 422
    assert time.monotonic() - began < 5


def test_bodies_share_a_budget_and_the_next_is_told_to_come_back(strict: Running, operator: str) -> None:
    size, deadline, got = 256 * 1024, time.monotonic() + CUT_OFF_SECONDS, b""
    with opened(strict) as one, opened(strict) as two:
        for held in (one, two):
            held.sendall(dispatch(operator, size) + b" " * (size - 1000))
        while not got and time.monotonic() < deadline:
            one.sendall(b" ")
            two.sendall(b" ")
            with opened(strict) as three, suppress(TimeoutError):  # the others are still being read
                three.settimeout(0.1)
                three.sendall(dispatch(operator, size))
                got = three.recv(65536)
        work = {"task_id": str(uuid4()), "work_type": "echo"}
        small = requests.post(f"{strict.http}/api/v1/dispatch", json=work, headers=bearer(operator), timeout=30)

    assert got.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in got
    assert small.ok


def test_requests_that_do_not_wait_for_answers_are_bounded(strict: Running) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with opened(strict) as few, opened(strict) as many:
        few.sendall(request * protocol.MOST_PIPELINED)
        got = b""
        while got.count(b"HTTP/1.1 200") < protocol.MOST_PIPELINED:
            got += few.recv(65536)
        many.sendall(request * 1000)
        got = b""
        with suppress(ConnectionError):
            while more := many.recv(65536):
                got += more

    assert got.count(b"HTTP/1.1 200") < 1000


def test_a_reader_that_takes_nothing_of_its_answer_is_cut_off(strict: Running) -> None:
    host, port = strict.address.split(":")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(CUT_OFF_SECONDS)
        deaf.connect((host, int(port)))
        # More than the kernel keeps for it.
        deaf.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)
        ended = select.poll()
        ended.register(deaf, select.POLLHUP | select.POLLERR)

        assert ended.poll(CUT_OFF_SECONDS * 1000)


def test_a_trailer_says_nothing_of_who_asks_or_for_whom(strict: Running, operator: str) -> None:
    head = "POST /api/v1/dispatch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    trailers = f"Authorization: Bearer {operator}\r\nHost: elsewhere\r\n"
    with opened(strict) as unknown:
        unknown.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n{trailers}\r\n".encode())

        assert answer_of(unknown) == 401


@pytest.mark.parametrize("hosts", [("localhost", "elsewhere"), ("elsewhere", "localhost"), ("localhost", "localhost")])
def test_a_request_that_names_two_hosts_is_refused(strict: Running, hosts: tuple[str, str]) -> None:
    with opened(strict) as ambiguous:
        ambiguous.sendall("GET /health HTTP/1.1\r\nHost: {}\r\nhOST: {}\r\n\r\n".format(*hosts).encode())

        assert answer_of(ambiguous) == 400
        assert ambiguous.recv(1) == b""


@pytest.mark.parametrize("wanted", ["h2c", "websocket2"])
def test_an_upgrade_to_what_is_not_spoken_here_is_answered_and_closed(strict: Running, wanted: str) -> None:
    with opened(strict) as upgrading:
        upgrading.sendall(
            f"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {wanted}\r\n\r\n".encode()
        )
        assert answer_of(upgrading) == 200
        upgrading.settimeout(CUT_OFF_SECONDS)
        with suppress(ConnectionError):
            assert upgrading.recv(1) == b""


def test_a_bad_request_for_a_websocket_is_answered_in_the_one_shape(strict: Running) -> None:
    with opened(strict) as upgrading:
        upgrading.sendall(
            b"GET /api/v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert answer_of(upgrading) == 400


async def test_the_long_polls_and_websockets_of_known_callers_outlast_all_these_times(
    strict: Running, operator: str, edges_ledger_url: str
) -> None:
    admin = bearer(await token_of(edges_ledger_url, Role.ADMIN))
    wanted: Any = {"name": f"poller-{uuid4().hex[:8]}", "agent_type": "infra"}
    invited = requests.post(f"{strict.http}/api/v1/enrolments", json=wanted, headers=admin, timeout=30).json()
    agent = requests.post(f"{strict.http}/api/v1/enrol", json={"token": invited["token"]}, timeout=30).json()
    async with connect(f"{strict.websocket}/api/v1/ws", additional_headers=bearer(operator)) as watching:
        assert json.loads(await watching.recv())["type"] == "hello"
        polled = await asyncio.to_thread(
            requests.post,
            f"{strict.http}/api/queue/jobs/claim",
            json={"workerId": agent["agent_id"], "leaseSeconds": 60, "allowedTypes": ["none"], "waitSeconds": 4},
            headers=bearer(agent["token"]),
            timeout=60,
        )
        task_id = str(uuid4())
        work = {"task_id": task_id, "work_type": "echo"}
        requests.post(f"{strict.http}/api/v1/dispatch", json=work, headers=bearer(operator), timeout=30)
        seen = ""
        async with asyncio.timeout(30):
            while task_id not in seen:
                seen = str(await watching.recv())

    assert (polled.status_code, polled.json()["job"]) == (200, None)
    assert polled.elapsed.total_seconds() > 3 * LATE


def test_a_tls_handshake_without_an_end_is_counted_and_cut_off(
    edges_ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", LATE)
    authority = Authority(tmp_path)
    served = authority.issue("server")
    with running_orchestrator(
        edges_ledger_url, tls_cert_file=served.cert, tls_key_file=served.key, authentication="off"
    ) as running:
        with opened(running) as silent, opened(running) as garbage:
            garbage.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            with suppress(ConnectionError):
                while garbage.recv(1024):
                    pass
            assert silent.recv(1) == b""
        context = ssl.create_default_context(cafile=str(authority.ca))
        host, port = running.address.split(":")
        with (
            socket.create_connection((host, int(port)), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            secure.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert secure.recv(1024).startswith(b"HTTP/1.1 200")
