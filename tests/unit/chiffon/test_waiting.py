"""What a caller can say about waiting, and what the client and the command line show of it."""

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from chiffon import Client
from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator

OPTIONS = [
    "--ordering-key",
    "web-1",
    "--concurrency-key",
    "pulls",
    "--concurrency-limit",
    "3",
    "--expires-after",
    "1.5",
]
WAITING = {"ordering_key", "concurrency_key", "concurrency_limit", "expires_after_seconds"}


async def test_the_client_sends_keys_and_limits(fake: FakeOrchestrator, url: str) -> None:
    async with Client(url) as client:
        await client.dispatch(
            "echo",
            ordering_key="web-1",
            concurrency_key="pulls",
            concurrency_limit=3,
            expires_after=timedelta(minutes=2),
        )

    (sent,) = fake.dispatches
    assert {name: sent[name] for name in WAITING} == {
        "ordering_key": "web-1",
        "concurrency_key": "pulls",
        "concurrency_limit": 3,
        "expires_after_seconds": 120.0,
    }


def test_the_options_of_dispatch_are_sent(fake: FakeOrchestrator, url: str) -> None:
    assert run(["dispatch", "echo", *OPTIONS, "--server", url]) == Exit.OK

    (sent,) = fake.dispatches
    assert [sent[name] for name in sorted(WAITING)] == ["pulls", 3, 1.5, "web-1"]


def test_what_is_not_asked_for_is_not_sent(fake: FakeOrchestrator, url: str) -> None:
    assert run(["dispatch", "echo", "--server", url]) == Exit.OK

    (sent,) = fake.dispatches
    assert not WAITING & sent.keys()


async def test_the_client_tells_why_a_task_waits(fake: FakeOrchestrator, url: str) -> None:
    task_id, other = str(uuid4()), uuid4()
    fake.add_task(task_id)
    fake.blockers = [
        {"kind": "ordering_key", "message": "behind", "key": "web-1", "ahead": 2, "task_ids": [str(other)]},
        {"kind": "expires", "message": "soon", "at": "2026-11-22T10:00:00Z", "something_new": 1},
    ]

    async with Client(url) as client:
        answer = await client.why(task_id)

    assert answer.waiting
    assert (answer.blockers[0].ahead, answer.blockers[0].task_ids) == (2, [other])
    assert answer.blockers[1].at == datetime(2026, 11, 22, 10, tzinfo=UTC)


def test_why_prints_a_line_for_each_thing_in_the_way_and_obeys_no_control_characters(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    task_id = str(uuid4())
    fake.add_task(task_id)
    fake.blockers = [
        {"kind": "agent_paused", "message": "host-1 is paused by anna (\x1b[31mdisk\n)."},
        {"kind": "queued", "message": "It waits in the ledger; 3 tasks go before it."},
    ]

    assert run(["why", task_id, "--server", url]) == Exit.OK

    assert capfd.readouterr().out == (
        "host-1 is paused by anna (\\u001b[31mdisk\\u000a).\nIt waits in the ledger; 3 tasks go before it.\n"
    )


def test_why_as_json_is_one_document(fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]) -> None:
    task_id = str(uuid4())
    fake.add_task(task_id)
    fake.blockers = [{"kind": "queued", "message": "next", "ahead": 0}]

    assert run(["why", task_id, "-o", "json", "--server", url]) == Exit.OK

    document = json.loads(capfd.readouterr().out)
    assert (document["task_id"], document["waiting"]) == (task_id, True)
    assert (document["blockers"][0]["kind"], document["blockers"][0]["ahead"]) == ("queued", 0)


def test_why_of_a_task_that_nobody_knows_is_not_found(url: str) -> None:
    assert run(["why", str(uuid4()), "--server", url]) == Exit.NOT_FOUND
