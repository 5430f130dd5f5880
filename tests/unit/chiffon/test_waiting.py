"""What a caller can say about waiting, and what the client and the command line show of it."""

import json
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import uuid4

import pytest

from chiffon import Client
from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from chiffon.cli.run_view import RunView
from chiffon.cli.run_waits import Waits
from common.plans.status import RunStatus
from common.rest.runs import RunStep
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator
from tests.unit.chiffon.fake_runs import make_step

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


def test_why_of_an_unknown_id_says_that_it_is_neither_a_task_nor_a_run(
    url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    unknown = str(uuid4())

    assert run(["why", unknown, "--server", url]) == Exit.NOT_FOUND
    assert f"Neither a task nor a run has the id {unknown}." in capfd.readouterr().err


def test_why_of_a_run_says_why_each_of_its_steps_waits(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_id, task_id = str(uuid4()), str(uuid4())
    fake.add_task(task_id)
    fake.blockers = [{"kind": "no_agent", "message": "No agent is online."}, {"kind": "queued", "message": "Next."}]
    fake.runs.add(run_id, make_step("fetch", "succeeded"), make_step("build", number=1, task_id=task_id))

    assert run(["why", run_id, "--server", url]) == Exit.OK
    assert capfd.readouterr().out == "build: No agent is online.\nbuild: Next.\n"

    assert run(["why", run_id, "-o", "json", "--server", url]) == Exit.OK
    document = json.loads(capfd.readouterr().out)
    assert (document["run_id"], document["waiting"]) == (run_id, True)
    assert [(one["step"], one["task_id"], len(one["blockers"])) for one in document["steps"]] == [("build", task_id, 2)]


def test_why_of_a_run_in_line_names_the_run_before_it_and_of_one_that_has_ended_its_status(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    waits, ended, before = str(uuid4()), str(uuid4()), str(uuid4())
    fake.runs.add(waits, make_step("build"), status="pending", key="release", waits_for=before)
    fake.runs.add(ended, make_step("build", "failed"), status="failed")

    assert run(["why", waits, "--server", url]) == run(["why", ended, "--server", url]) == Exit.OK

    assert capfd.readouterr().out.splitlines() == [
        f"It waits behind the run {before} of the same key, 'release'.",
        "It does not wait: it is failed.",
    ]


def test_a_run_that_is_shown_says_below_its_steps_why_they_wait(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run_id, task_id = str(uuid4()), str(uuid4())
    fake.add_task(task_id)
    fake.blockers = [{"kind": "no_agent", "message": "No agent is online."}]
    gone = make_step("gone", number=1, task_id=str(uuid4()))
    fake.runs.add(run_id, make_step("build", number=1, task_id=task_id), gone)

    assert run(["runs", "show", run_id, "--server", url]) == Exit.OK

    assert capfd.readouterr().out.splitlines()[-1] == "build waits: No agent is online."


class Told:
    """What is told about waiting, in place of a view."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def waits(self, step: RunStep, reason: str, *_: object) -> None:
        self.all.append(f"{step.step}: {reason}")

    def waits_in_line(self, reason: str | None, _at: datetime) -> None:
        self.all += [] if reason is None else [reason]


async def test_a_step_that_waits_at_two_looks_is_explained_and_what_cannot_be_asked_is_passed_over(
    fake: FakeOrchestrator, url: str
) -> None:
    run_id, task_id = str(uuid4()), str(uuid4())
    fake.add_task(task_id)
    fake.blockers = [{"kind": "no_agent", "message": "No agent is online."}]
    fake.runs.add(run_id, make_step("build", number=1, task_id=task_id), make_step("test"))
    told = Told()

    async with Client(url) as client, Client("http://127.0.0.1:1") as nobody:
        for asked, looks in ((client, 1), (client, 2), (nobody, 2)):
            told.all.clear()
            waits = Waits(asked, cast("RunView", told))
            waits.stands(await client.run(run_id))
            for _ in range(looks):
                await waits.tell()
            assert told.all == (["build: No agent is online."] if (asked, looks) == (client, 2) else [])


async def test_a_run_in_line_is_explained_and_one_that_has_ended_is_not(fake: FakeOrchestrator, url: str) -> None:
    run_id, before = str(uuid4()), str(uuid4())
    fake.runs.add(run_id, make_step("build"), status="pending", key="release", waits_for=before)
    told = Told()

    async with Client(url) as client:
        waits = Waits(client, cast("RunView", told))
        await waits.tell()
        waits.stands(await client.run(run_id))
        await waits.tell()
        waits.stands((await client.run(run_id)).model_copy(update={"status": RunStatus.CANCELLED}))
        await waits.tell()

    assert told.all == [f"It waits behind the run {before} of the same key, 'release'."]
