"""Over HTTP inner steps and files travel as over a bus: in their order, and what is stored is told the same."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from agents.identity.registration import Identity
from agents.over_http.client import QueueClient, ServerAway
from agents.over_http.held import HeldJobs
from agents.over_http.inbox import Inbox
from agents.over_http.reports import Reports
from common.artifacts import MOST_PIECES
from common.broker.memory import MemoryBroker
from common.broker.topology import control_queue
from common.messages import LONGEST_MESSAGE, Lease, StepStatus, Stored
from common.orders import ArtifactsStored, FilePiece, StepsStored
from common.protocol import ControlEnvelope, decode
from tests.factories import make_chunk, make_piece, make_result, make_status, make_step, make_want

AGENT, TASK = UUID(int=7), uuid4()
END = [make_step(4, "verify", status=StepStatus.FAILED), make_step(5, "rollback", status=StepStatus.SUCCEEDED)]
HELLO = {"offset": 0, "size": 5, "sha256": "0" * 64, "data": "aGVsbG8=", "problem": ""}

Answer = Callable[[dict[str, Any]], Any]


class Server:
    """Answers each kind of report with what the test says, and remembers what was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {"steps": {}, "artifacts": {"stored": False}, "files": HELLO, **answers}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        http = httpx2.AsyncClient(base_url="http://server", transport=httpx2.MockTransport(self._answer))
        self._local = MemoryBroker()
        identity = Identity(
            agent_id=AGENT,
            agent_type="infra",
            hostname="host",
            version="1",
            work_types=("echo",),
            slots=1,
            started_at=datetime.now(UTC),
        )
        self.reports = Reports(QueueClient(http, AGENT, lease_seconds=30), HeldJobs(), Inbox(self._local, identity))

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    async def told(self) -> list[object]:
        """Return what the agent was told, in order."""
        queue = control_queue(AGENT)
        await self._local.declare(queue)
        orders: list[object] = []
        async with self._local.consume(queue.name, prefetch=100) as consumer:
            while await self._local.depth(queue.name):
                for delivery in await consumer.receive(100):
                    envelope = decode(delivery.body)
                    assert isinstance(envelope, ControlEnvelope)
                    orders.append(envelope.payload.order)
                    await consumer.ack(delivery)
        return orders

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.rsplit("/", 1)[-1]
        body = json.loads(request.content)
        self.asked.append((path, body))
        answer = self.answers.get(path, {})
        if callable(answer):
            answer = answer(body)
        return answer if isinstance(answer, httpx2.Response) else httpx2.Response(200, json=answer)


def problem(status: int, code: int, text: str = "because") -> httpx2.Response:
    return httpx2.Response(status, json={"error_code": code, "error_message": text})


def in_turn(*answers: Any) -> Answer:
    """Return an answer that is another one each time."""
    left = list(answers)
    return lambda _: left.pop(0)


async def test_everything_that_is_said_of_a_job_goes_in_the_order_in_which_it_counts() -> None:
    server = Server(artifacts={"stored": True})
    said = make_status(
        TASK, AGENT, make_chunk(0, "x", offset=0), progress="50%", steps=[make_step()], pieces=[make_piece()]
    )

    await server.reports.send([said, make_result(TASK, AGENT)])

    assert server.paths == ["output", "progress", "steps", "artifacts", "complete"]


async def test_a_step_says_over_http_all_that_it_says_over_a_bus() -> None:
    server = Server()
    step = make_step(2, "build", started_at=datetime(2026, 11, 22, tzinfo=UTC), message="grüße")

    await server.reports.send([make_status(TASK, AGENT, attempt=3, steps=[step])])

    [(_, body)] = server.asked
    assert body == {
        "workerId": str(AGENT),
        "attempt": 3,
        "steps": [
            {
                "position": 2,
                "name": "build",
                "status": "in_progress",
                "startedAt": "2026-11-22T00:00:00Z",
                "finishedAt": None,
                "message": "grüße",
            }
        ],
    }
    assert await server.told() == []


async def test_a_host_is_told_when_its_end_is_stored() -> None:
    server = Server(steps={"through": "rollback"})

    await server.reports.send([make_status(TASK, AGENT, steps=END)])

    assert await server.told() == [StepsStored(task_id=TASK, attempt=1, through="rollback")]


@pytest.mark.parametrize("refusal", [problem(409, 2005), problem(404, 2001), problem(422, 1002)], ids=str)
async def test_a_host_may_forget_an_end_that_is_refused_for_good_and_nothing_else(refusal: httpx2.Response) -> None:
    server = Server(steps=refusal)

    await server.reports.send([make_status(TASK, AGENT, steps=END[:1])])
    before = await server.told()
    await server.reports.send([make_status(TASK, AGENT, steps=END)])

    assert before == []
    assert await server.told() == [StepsStored(task_id=TASK, attempt=1, through="rollback")]


@pytest.mark.parametrize(
    "answer", [problem(503, 9003), httpx2.Response(502, text="<html>"), {"through": "Not A Step"}], ids=str
)
async def test_an_end_of_which_nobody_says_that_it_is_stored_is_not_forgotten(answer: Any) -> None:
    server = Server(steps=answer)

    with pytest.raises(ServerAway):
        await server.reports.send([make_status(TASK, AGENT, steps=END)])

    assert await server.told() == []


async def test_an_agent_is_told_which_files_are_stored_and_which_never_will_be() -> None:
    def answer(body: dict[str, Any]) -> Any:
        match body["name"]:
            case "a":
                return {"stored": True}
            case "b":
                return {"stored": False, "refused": "its digest is another\none"}
            case "c":
                return problem(409, 2005, "this is not your job")
        return {"stored": False}

    server = Server(artifacts=answer)
    pieces = [make_piece(name=name) for name in ("a", "b", "c", "d")]

    await server.reports.send([make_status(TASK, AGENT, pieces=pieces)])

    assert await server.told() == [
        ArtifactsStored(
            task_id=TASK,
            attempt=1,
            names=["a"],
            refused={"b": "its digest is another one", "c": "this is not your job"},
        )
    ]
    [(_, body), *_] = server.asked
    assert body == {
        "workerId": str(AGENT),
        "attempt": 1,
        **{name: getattr(pieces[0], name) for name in ("name", "type", "sha256", "size", "offset", "data")},
    }


async def test_no_more_of_a_file_is_sent_when_it_was_refused() -> None:
    server = Server(artifacts={"stored": False, "refused": "it is too large" + "!" * LONGEST_MESSAGE})
    content = b"x" * MOST_PIECES
    pieces = [make_piece(content, offset=at, data="eA==") for at in range(MOST_PIECES)]

    await server.reports.send([make_status(TASK, AGENT, pieces=pieces)])

    assert server.paths == ["artifacts"]
    [told] = await server.told()
    assert isinstance(told, ArtifactsStored)
    assert told.refused["dist/a.whl"].startswith("it is too large!")


async def test_an_agent_is_told_nothing_of_a_file_while_pieces_are_missing() -> None:
    server = Server(artifacts=in_turn({"stored": False}, {"stored": True}))
    first, second = (make_piece(b"ab", offset=at, data=b64encode(b"ab"[at : at + 1]).decode()) for at in (0, 1))

    await server.reports.send([make_status(TASK, AGENT, pieces=[first])])
    before = await server.told()
    await server.reports.send([make_status(TASK, AGENT, pieces=[second])])

    assert before == []
    assert await server.told() == [ArtifactsStored(task_id=TASK, attempt=1, names=["dist/a.whl"])]


async def test_a_piece_of_a_file_is_brought_to_whoever_wants_it() -> None:
    server = Server()
    want = make_want(AGENT, task_id=TASK, attempt=2, offset=9)

    await server.reports.send([want])

    assert server.asked == [
        ("files", {"workerId": str(AGENT), "attempt": 2, "path": want.path, "offset": 9}),
    ]
    [told] = await server.told()
    assert isinstance(told, FilePiece)
    assert (told.want_id, told.raw, told.problem) == (want.want_id, b"hello", "")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            {"offset": 3, "size": 0, "sha256": "", "data": "", "problem": "there is no such file"},
            "there is no such file",
        ),
        (problem(409, 2005, "this is not\nyour job"), "this is not your job"),
    ],
    ids=["problem", "refused"],
)
async def test_whoever_wants_a_file_that_is_not_to_be_had_is_told_why(answer: Any, told: str) -> None:
    server = Server(files=answer)
    want = make_want(AGENT)

    await server.reports.send([want])

    [piece] = await server.told()
    assert isinstance(piece, FilePiece)
    assert (piece.want_id, piece.problem) == (want.want_id, told)


@pytest.mark.parametrize(
    "answer",
    [problem(503, 9003), {**HELLO, "data": "?"}, {**HELLO, "sha256": ""}, {**HELLO, "size": 3}, {}],
    ids=str,
)
async def test_what_is_no_piece_of_a_file_is_asked_for_again(answer: Any) -> None:
    server = Server(files=answer)

    with pytest.raises(ServerAway):
        await server.reports.send([make_want(AGENT)])

    assert await server.told() == []


async def test_whoever_wants_a_file_that_is_on_its_way_is_told_nothing_and_asks_again() -> None:
    server = Server(files=in_turn({"pending": True}, HELLO))
    want = make_want(AGENT)

    await server.reports.send([want])
    before = await server.told()
    await server.reports.send([want])

    assert before == []
    assert len(await server.told()) == 1


async def test_whoever_wants_files_waits_for_no_report_of_its_job() -> None:
    is_open = asyncio.Event()
    server = Server()
    answer = server._answer

    async def slow(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/output"):
            await is_open.wait()
        return await answer(request)

    server.reports = Reports(
        QueueClient(
            httpx2.AsyncClient(base_url="http://server", transport=httpx2.MockTransport(slow)), AGENT, lease_seconds=30
        ),
        HeldJobs(),
        server.reports._inbox,
    )
    wants: Sequence[Any] = [make_want(AGENT, task_id=TASK) for _ in range(3)]

    sending = asyncio.create_task(server.reports.send([make_status(TASK, AGENT, make_chunk(0, "x", offset=0)), *wants]))
    while len(server.paths) < 3:
        await asyncio.sleep(0)
    told = await server.told()
    is_open.set()
    await sending

    assert {order.want_id for order in told if isinstance(order, FilePiece)} == {want.want_id for want in wants}


async def test_a_result_is_stored_though_nothing_else_of_its_job_is_wanted_any_more() -> None:
    server = Server(steps=problem(409, 2005), artifacts=problem(409, 2005), files=problem(409, 2005))
    said = make_status(TASK, AGENT, steps=[make_step()], pieces=[make_piece()])

    await server.reports.send([said, make_result(TASK, AGENT)])

    assert (await server.told())[-1] == Stored(results=[Lease(task_id=TASK, attempt=1)])
