"""What does no harm twice is sent again with the same ids; all else is sent once, whatever became of its answer."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx2
import pytest

from chiffon import ApiError, Client, ServerUnreachable

ID = "7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11"
REQUEST = "0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60"
WORK = {"work_type": "echo"}
ENOUGH = 418
"""An answer that nothing is repeated after."""

Call = Callable[[Client], Awaitable[object]]

# Each of these would be done once more: a second token that nobody knows, a second replay, a second remark.
ONCE: dict[str, Call] = {
    "cancel": lambda client: client.cancel(ID),
    "cancel_trace": lambda client: client.cancel_trace(ID),
    "ask": lambda client: client.ask("echo"),
    "comment": lambda client: client.comment(ID, "hm"),
    "create_identity": lambda client: client.create_identity("ann", ["viewer"]),
    "create_token": lambda client: client.create_token(ID),
    "claim_token": lambda client: client.claim_token(),
    "invite_agent": lambda client: client.invite_agent("web-1", "infra"),
    "enrol": lambda client: client.enrol("che_x"),
    "forget_agent": lambda client: client.forget_agent(ID),
    "repair": lambda client: client.repair("web", "Fix it."),
    "retry_run": lambda client: client.retry_run(ID),
    "retry_repair": lambda client: client.retry_repair(ID),
    "abandon_run": lambda client: client.abandon_run(ID),
    "approve_run": lambda client: client.approve_run(ID),
    "reject_run": lambda client: client.reject_run(ID, reason="no"),
    "replay_dead_letter": lambda client: client.replay_dead_letter(17),
    "replay_dead_letters": lambda client: client.replay_dead_letters([17, 18]),
    "discard_dead_letter": lambda client: client.discard_dead_letter(17),
    "discard_dead_letters": lambda client: client.discard_dead_letters([17, 18]),
}
# What makes a task names it, so that the same task is meant again.
MAKES_TASKS: dict[str, Call] = {
    "dispatch": lambda client: client.dispatch("echo", request_id=REQUEST),
    "dispatch_batch": lambda client: client.dispatch_batch([WORK, WORK]),
    "rerun": lambda client: client.rerun(ID),
}
AGAIN: dict[str, Call] = MAKES_TASKS | {
    "start_run": lambda client: client.start_run({"steps": [{"name": "a", "work_type": "echo"}]}, run_id=ID),
    "cancel_run": lambda client: client.cancel_run(ID),
    "upload": lambda client: client.upload(Path(__file__)),
    "hand_in": lambda client: client.hand_in(WORK | {"task_id": ID, "request_id": REQUEST}),
    "approve": lambda client: client.approve(ID),
    "reject": lambda client: client.reject(ID, reason="no"),
    "pause_agent": lambda client: client.pause_agent(ID),
    "drain_agent": lambda client: client.drain_agent(ID),
    "resume_agent": lambda client: client.resume_agent(ID),
    "disable_identity": lambda client: client.disable_identity(ID),
    "revoke_token": lambda client: client.revoke_token(ID),
}
READS: dict[str, Call] = {
    "agents": lambda client: client.agents(),
    "approval": lambda client: client.approval(ID),
    "approvals": lambda client: client.approvals(),
    "artifacts": lambda client: client.artifacts(run_id=ID),
    "audit": lambda client: anext(client.audit()),
    "capacity": lambda client: client.capacity(),
    "dead_letter": lambda client: client.dead_letter(17),
    "dead_letters": lambda client: client.dead_letters(),
    "events": lambda client: client.events(ID),
    "executions": lambda client: client.executions(),
    "fan_out": lambda client: client.fan_out(ID),
    "identities": lambda client: client.identities(),
    "output": lambda client: client.output(ID),
    "run": lambda client: client.run(ID),
    "runs": lambda client: client.runs(),
    "queue_snapshot": lambda client: client.queue_snapshot(),
    "status": lambda client: client.status(ID),
    "tasks": lambda client: client.tasks(),
    "tokens": lambda client: client.tokens(),
    "whoami": lambda client: client.whoami(),
    "why": lambda client: client.why(ID),
    "work_types": lambda client: client.work_types(),
}
# They last, or ask one time only, or send nothing.
LASTS = frozenset({"wait", "wait_for_run", "watch", "watch_fan_out", "watch_run"})
OTHERS = LASTS | {"http", "ready", "read_artifact", "download"}

BUSY = (502, 503, 504)
LOST = (httpx2.ReadTimeout, httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)
NOT_MADE = (httpx2.ConnectError, httpx2.ConnectTimeout)

Fate = int | type[httpx2.TransportError]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chiffon.http.FIRST_PAUSE", timedelta(0))


async def sent(call: Call, *fates: Fate) -> list[httpx2.Request]:
    """Return the requests of a call that meet these fates one after another; it ends with an error in any case."""
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        fate = fates[len(requests)]
        requests.append(request)
        if isinstance(fate, int):
            return httpx2.Response(fate, text="a proxy's page")
        raise fate("a bad network")

    async with Client("http://127.0.0.1", transport=httpx2.MockTransport(answer)) as client:
        with pytest.raises((ApiError, ServerUnreachable)):
            await call(client)
    return requests


def test_every_call_of_the_client_is_in_one_of_these_lists() -> None:
    calls = [name for name in dir(Client) if not name.startswith("_")]

    assert sorted(calls) == sorted([*ONCE, *AGAIN, *READS, *OTHERS])


@pytest.mark.parametrize("status", BUSY)
@pytest.mark.parametrize("name", ONCE)
async def test_what_may_not_be_repeated_is_sent_once_whatever_a_proxy_answers(name: str, status: int) -> None:
    assert len(await sent(ONCE[name], status, ENOUGH)) == 1


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("name", ONCE)
async def test_what_may_not_be_repeated_is_sent_once_when_its_answer_is_lost(
    name: str, lost: type[httpx2.TransportError]
) -> None:
    assert len(await sent(ONCE[name], lost, ENOUGH)) == 1


@pytest.mark.parametrize("not_made", NOT_MADE)
@pytest.mark.parametrize("name", ONCE)
async def test_a_connection_that_could_not_be_made_is_tried_again_whatever_is_to_be_sent(
    name: str, not_made: type[httpx2.TransportError]
) -> None:
    assert len(await sent(ONCE[name], not_made, not_made, ENOUGH)) == 3


@pytest.mark.parametrize("fate", [*BUSY, *LOST])
@pytest.mark.parametrize("name", [*AGAIN, *READS])
async def test_what_may_be_repeated_is_sent_again_with_the_same_ids_and_content(name: str, fate: Fate) -> None:
    requests = await sent((AGAIN | READS)[name], fate, fate, ENOUGH)

    assert len(requests) == 3
    assert len({(request.method, request.url, request.content) for request in requests}) == 1


@pytest.mark.parametrize("name", MAKES_TASKS)
async def test_a_request_that_makes_a_task_names_the_task(name: str) -> None:
    [request] = await sent(MAKES_TASKS[name], ENOUGH)

    body = json.loads(request.content)
    ids = [UUID(task["task_id"]) for task in body.get("tasks", [body])]
    assert len(set(ids)) == len(ids)


async def test_the_ids_that_a_caller_chose_are_sent_and_no_others() -> None:
    [one] = await sent(lambda client: client.dispatch("echo", task_id=ID, request_id=REQUEST), ENOUGH)
    [many] = await sent(lambda client: client.dispatch_batch([WORK | {"task_id": ID, "request_id": REQUEST}]), ENOUGH)
    [again] = await sent(lambda client: client.rerun(ID, as_task=REQUEST), ENOUGH)

    bodies = [json.loads(one.content), *json.loads(many.content)["tasks"]]
    assert [(body["task_id"], body["request_id"]) for body in bodies] == [(ID, REQUEST)] * 2
    assert json.loads(again.content) == {"task_id": REQUEST}


@pytest.mark.parametrize("fate", [503, httpx2.ReadTimeout, httpx2.ConnectError])
async def test_after_four_times_the_last_answer_counts(fate: Fate) -> None:
    assert len(await sent(AGAIN["dispatch"], *[fate] * 5)) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 429, 500])
@pytest.mark.parametrize("name", ["dispatch", "status"])
async def test_an_answer_that_would_be_the_same_again_is_not_asked_for_again(name: str, status: int) -> None:
    assert len(await sent((AGAIN | READS)[name], status, ENOUGH)) == 1
