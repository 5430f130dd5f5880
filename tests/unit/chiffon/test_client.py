"""The Python client against an orchestrator that answers as the real one does."""

import asyncio
from datetime import timedelta
from functools import partial
from uuid import uuid4

import httpx2
import pytest

import chiffon
from chiffon import ApiError, Client, ServerUnreachable, models
from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from common.errors import InvalidField
from common.lifecycle import Status
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator

TIME_LIMIT = 10


async def test_a_dispatch_names_its_task_so_that_it_can_be_repeated(fake: FakeOrchestrator, url: str) -> None:
    async with Client(url) as client:
        accepted = await client.dispatch("echo", {"message": "hi"}, priority=5, agent_type="infra")

    (sent,) = fake.dispatches
    assert sent["task_id"] == str(accepted.task_id)
    assert sent["parameters"] == {"message": "hi"}
    assert sent["priority"] == 5
    assert sent["hints"] == {"agent_type": "infra"}


async def test_a_lost_answer_is_asked_for_again_with_the_same_id(fake: FakeOrchestrator, url: str) -> None:
    fake.lost_answers = 2

    async with Client(url) as client:
        accepted = await client.dispatch("echo")

    assert [sent["task_id"] for sent in fake.dispatches] == [str(accepted.task_id)] * 3
    assert len(fake.tasks) == 1


async def test_an_error_answer_keeps_its_code_its_message_and_its_trace(url: str) -> None:
    async with Client(url) as client:
        with pytest.raises(ApiError) as caught:
            await client.status(uuid4())

    assert caught.value.status == 404
    assert caught.value.error_code == 2001
    assert caught.value.error_message == "No task has this id."
    assert caught.value.trace_id is not None


async def test_an_answer_that_is_no_problem_document_is_still_an_api_error() -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(418, text="I am a teapot"))
    async with Client("http://127.0.0.1", transport=transport) as client:
        with pytest.raises(ApiError, match="teapot") as caught:
            await client.agents()

    assert caught.value.status == 418
    assert caught.value.error_code is None


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"error_code": [], "trace_id": {}, "errors": [5, null, []], "title": {}}',
        '{"error_code": "x", "errors": {"a": 1}}',
        "[" + "9" * 5000 + "]",
    ],
    ids=["deep", "types", "an object of errors", "digits"],
)
def test_no_answer_of_a_server_is_an_unforeseen_failure(
    text: str, status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = httpx2.MockTransport(lambda request: httpx2.Response(status, text=text))
    made = partial(Client, transport=answer)
    monkeypatch.setattr("chiffon.cli.options.Client", made)

    assert run(["status", str(uuid4())]) == Exit.ERROR
    assert "Traceback" not in capfd.readouterr().err


async def test_a_server_that_is_not_there_is_said_to_be_unreachable(nobody_url: str) -> None:
    async with Client(nobody_url) as client:
        with pytest.raises(ServerUnreachable, match="Cannot reach the orchestrator"):
            await client.agents()


async def test_a_server_that_does_not_answer_in_time_is_said_to_be_unreachable() -> None:
    async def read_and_keep_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(read_and_keep_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}", timeout=timedelta(seconds=0.1)) as client:
            with pytest.raises(ServerUnreachable, match="Cannot reach the orchestrator"):
                async with asyncio.timeout(TIME_LIMIT):
                    await client.cancel(uuid4())


async def test_waiting_for_a_task_that_has_ended_returns_at_once(fake: FakeOrchestrator, url: str) -> None:
    task_id = str(uuid4())
    fake.add_task(task_id, status="failed", exit_code=3)

    async with Client(url) as client, asyncio.timeout(TIME_LIMIT):
        status = await client.wait(task_id)

    assert status.status is Status.FAILED
    assert status.exit_code == 3


async def test_waiting_ends_when_the_task_does(fake: FakeOrchestrator, url: str) -> None:
    task_id = str(uuid4())
    fake.add_task(task_id, status="running", exit_code=None)

    async with Client(url, patience=timedelta(seconds=5)) as client:
        watched = client.watch(task_id=task_id, after=0)
        assert (await anext(watched)).kind == "task.dispatched"
        fake.tasks[task_id]["status"] = "completed"
        fake.add_event("task.completed", task_id)
        status = await client.wait(task_id)
        await watched.aclose()

    assert status.status is Status.COMPLETED


async def test_a_client_reads_what_a_newer_server_answers(fake: FakeOrchestrator, url: str) -> None:
    fake.add_agent("web-1", labels={"zone": "eu"}, mood="good")
    fake.add_letter(17, kind="sigh", state="postponed")
    async with Client(url) as client:
        [agent] = await client.agents()
        [letter] = (await client.dead_letters()).items

    assert (agent.hostname, agent.labels) == ("web-1", {"zone": "eu"})
    assert (letter.kind, letter.state) == ("sigh", "postponed")


async def test_a_wrong_field_is_named_and_nothing_is_sent(fake: FakeOrchestrator, url: str) -> None:
    async with Client(url) as client:
        with pytest.raises(InvalidField, match=r"^priority: "):
            await client.dispatch("echo", priority=9)
        with pytest.raises(InvalidField, match=r"^hints\.required_capabilities"):
            await client.dispatch("echo", required={"": 1})

    assert not fake.dispatches


def test_every_name_of_the_client_can_be_imported() -> None:
    for name in chiffon.__all__:
        assert getattr(chiffon, name) is not None
    for name in models.__all__:
        assert getattr(models, name) is not None
