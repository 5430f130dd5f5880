"""Which answers of a server decide something, and which only mean: ask again."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from agents.over_http.client import QueueClient, Refused, ServerAway
from common.rest.jobs import ClaimAnswer, CompleteRequest, OutputRequest
from tests.factories import make_job


def client(answer: Callable[[httpx2.Request], httpx2.Response]) -> QueueClient:
    http = httpx2.AsyncClient(base_url="http://server/prefix/", transport=httpx2.MockTransport(answer))
    return QueueClient(http, uuid4(), lease_seconds=30)


def problem(status: int, code: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json={"error_code": code, "error_message": "because"}, headers=headers)


async def failure(answer: httpx2.Response | Exception) -> Exception:
    """Return what a report raises that is answered so."""

    def respond(_: httpx2.Request) -> httpx2.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises((ServerAway, Refused)) as raised:
        await client(respond).report(uuid4(), CompleteRequest, {})
    return raised.value


@pytest.mark.parametrize(("status", "code"), [(409, 2002), (400, 2002), (404, 2001), (422, 1002), (413, 1002)])
async def test_what_the_queue_api_refuses_stays_refused(status: int, code: int) -> None:
    refusal = await failure(problem(status, code))

    assert isinstance(refusal, Refused)
    assert str(refusal) == "because"


@pytest.mark.parametrize(
    "answer",
    [
        problem(503, 9003),
        problem(500, 9000),
        problem(429, 9003),
        problem(404, 9004),
        httpx2.Response(409, text="a proxy says conflict"),
        httpx2.Response(404, json={"message": "no such page"}),
        httpx2.Response(502, text="<html>"),
        httpx2.Response(301, headers={"location": "http://elsewhere/"}),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("half an answer"),
    ],
    ids=str,
)
async def test_what_decides_nothing_is_asked_again(answer: httpx2.Response | Exception) -> None:
    away = await failure(answer)

    assert isinstance(away, ServerAway)
    assert away.may_have_arrived


async def test_a_request_that_never_left_cannot_have_been_served() -> None:
    away = await failure(httpx2.ConnectError("refused"))

    assert isinstance(away, ServerAway)
    assert not away.may_have_arrived


@pytest.mark.parametrize(("given", "seconds"), [("7", 7.0), ("100000", 60.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0)])
async def test_a_server_that_is_busy_says_when_to_come_back(given: str, seconds: float) -> None:
    away = await failure(problem(429, 9003, **{"retry-after": given}))

    assert isinstance(away, ServerAway)
    assert away.retry_after == seconds


@pytest.mark.parametrize("content", ["", "<html>", "[]", '{"job": {"id": 1}}'])
async def test_a_success_that_cannot_be_read_is_no_answer(content: str) -> None:
    asked = client(lambda _: httpx2.Response(200, text=content))

    with pytest.raises(ServerAway, match="not understood"):
        await asked.claim(uuid4(), types=["echo"], wait_seconds=0)


async def test_a_claim_says_who_asks_for_what_and_for_how_long() -> None:
    asked: list[tuple[str, Any]] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        asked.append((request.url.path, request.read()))
        return httpx2.Response(200, json={"job": None})

    claim_id = uuid4()
    assert (await client(respond).claim(claim_id, types=["echo"], wait_seconds=3)).job is None

    [(path, body)] = asked
    assert path == "/prefix/api/queue/jobs/claim"
    assert str(claim_id).encode() in body
    assert b'"leaseSeconds":30' in body
    assert b'"waitSeconds":3' in body


async def test_a_job_that_nobody_can_have_claimed_is_no_answer() -> None:
    answer = ClaimAnswer(job=make_job(attempt=0)).model_dump(mode="json", by_alias=True)
    asked = client(lambda _: httpx2.Response(200, json=answer))

    with pytest.raises(ServerAway, match=r"not understood: job\.attempt"):
        await asked.claim(uuid4(), types=["echo"], wait_seconds=0)


async def test_what_a_newer_server_adds_to_an_answer_is_ignored() -> None:
    job = make_job(payload={"message": "x"})
    shown = job.model_dump(mode="json", by_alias=True) | {"status": "parked", "mood": "good"}
    asked = client(
        lambda _: httpx2.Response(200, json={"job": shown, "grant": None, "signature": None, "weather": "fine"})
    )

    got = (await asked.claim(uuid4(), types=["echo"], wait_seconds=0)).job

    assert got == job.model_copy(update={"status": "parked"})


async def test_a_report_that_the_queue_api_would_refuse_is_refused_with_its_field_and_not_sent() -> None:
    sent: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, json={})

    asked = client(respond)

    with pytest.raises(Refused, match=r"^number: ") as refused:
        await asked.report(uuid4(), OutputRequest, {"stream": "stdout", "offset": 0, "number": -1, "text": "x"})

    assert refused.value.is_fault
    assert not sent
