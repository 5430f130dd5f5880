"""What is shown of a run while it goes: every line that its steps write, also of steps that were quick."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from chiffon.cli.run_follow import AgentNames, Written
from chiffon.cli.run_view import RunView
from chiffon.client import Client
from chiffon.models import Event, Run
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator
from tests.unit.chiffon.fake_runs import NOTHING, TIMES, make_step

RUN, FIRST, SECOND, AGENT = uuid4(), uuid4(), uuid4(), uuid4()
AT = datetime(2026, 11, 30, 10, tzinfo=UTC)


def make_run(status: str, *steps: dict[str, Any]) -> Run:
    ids = {"run_id": RUN, "request_id": uuid4(), "trace_id": uuid4(), "name": "nightly", "requested_by": "ann"}
    return Run.model_validate(
        {**ids, "status": status, **TIMES, **NOTHING, "plan": {}, "inputs": {}, "steps": list(steps)}
    )


def make_event(what: str, task_id: UUID | None = None, /, **data: Any) -> Event:
    about = {"task_id": task_id, "trace_id": None, "request_id": None, "agent_id": AGENT, "attempt": 1}
    return Event.model_validate({"seq": 1, "at": AT, "kind": what, "actor": "orchestrator", "data": data, **about})


def begins(task_id: UUID, number: int) -> Event:
    known = {"run_id": str(RUN), "step": "try", "kind": "step", "number": number, "status": "pending"}
    return make_event("run.step", task_id, **known, task_id=str(task_id))


def writes(task_id: UUID, text: str) -> Event:
    return make_event("task.output", task_id, stream="stdout", offset=0, text=text)


class Lines:
    """The lines that were written, in place of a view."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def wrote(self, name: str, _mark: str, text: str, _at: datetime) -> None:
        self.all.append((name, text))


async def test_a_round_that_was_over_when_the_ledger_was_asked_is_shown() -> None:
    lines = Lines()
    written = Written(cast("Client", None), cast("RunView", lines), from_start=True)
    later = make_run("running", make_step("try", "running", number=2, task_id=str(SECOND)))

    for event in (begins(FIRST, 1), writes(FIRST, "no\n"), begins(SECOND, 2), writes(SECOND, "yes\n")):
        await written.take(later, event)

    assert lines.all == [("try", "no"), ("try", "yes")]


async def test_what_was_written_comes_before_the_end_that_the_ledger_knows_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client("http://127.0.0.1:1")
    runs = [make_run("running", make_step("try", "pending")), make_run("succeeded", make_step("try", "succeeded"))]
    told = [
        begins(FIRST, 1),
        make_event("task.completed", FIRST),
        writes(FIRST, "yes\n"),
        make_event("run.status", run_id=str(RUN), status="succeeded"),
    ]

    async def stored(_run_id: UUID) -> Run:
        return runs[0] if len(runs) == 1 else runs.pop(0)

    async def follow(*_: Any) -> AsyncGenerator[Event, None]:
        for event in told:
            yield event

    monkeypatch.setattr(client, "run", stored)
    monkeypatch.setattr(client, "_follow", follow)

    seen = [(event.kind, run.is_final) async for run, event in client.watch_run(RUN) if event is not None]

    assert seen == [
        ("run.step", False),
        ("task.completed", False),
        ("task.output", False),
        ("run.status", True),
    ]


async def test_an_agent_that_only_its_id_tells_is_asked_for_once(fake: FakeOrchestrator, url: str) -> None:
    fake.runs.add(str(RUN), make_step("try", "running", agent_id=str(AGENT), agent_name="web-1"))
    run = make_run("running", make_step("try", "running", agent_id=str(AGENT)))
    other = make_run("running", make_step("try", "running", agent_id=str(uuid4())))

    async with Client(url) as client:
        names = AgentNames(client)
        found = [await names.put_into(one) for one in (run, other)]
        fake.runs.runs.clear()
        found += [await names.put_into(one) for one in (run, other)]

    assert [one.steps[0].agent_name for one in found] == ["web-1", None, "web-1", None]
