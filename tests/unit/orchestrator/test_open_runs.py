"""Which open runs are looked at after which events."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.plans.status import RunStatus
from orchestrator.events.model import Event, Kind
from orchestrator.runs.model import Pending
from orchestrator.runs.open_runs import OpenRuns

RUN, TRACE = uuid4(), uuid4()


def make_event(kind: Kind, trace_id: UUID = TRACE, **data: Any) -> Event:
    return Event(1, datetime.now(UTC), kind, uuid4(), trace_id, None, None, 1, "test", data)


async def known(status: RunStatus = RunStatus.RUNNING) -> OpenRuns:
    runs = OpenRuns()
    runs.add(RUN, TRACE)
    runs.stands(RUN, status)
    return runs


NEWS: dict[str, tuple[RunStatus, Event, bool]] = {
    "an end": (RunStatus.RUNNING, make_event(Kind.TASK_COMPLETED), True),
    "a failure": (RunStatus.RUNNING, make_event(Kind.TASK_FAILED), True),
    "an end elsewhere": (RunStatus.RUNNING, make_event(Kind.TASK_COMPLETED, uuid4()), False),
    "output": (RunStatus.RUNNING, make_event(Kind.TASK_OUTPUT), False),
    "the first claim": (RunStatus.PENDING, make_event(Kind.TASK_CLAIMED), True),
    "another claim": (RunStatus.RUNNING, make_event(Kind.TASK_CLAIMED), False),
    "an inner step": (RunStatus.RUNNING, make_event(Kind.TASK_STEP, name="build", status="succeeded"), False),
    "a rollback that begins": (
        RunStatus.RUNNING,
        make_event(Kind.TASK_STEP, name="rollback", status="in_progress"),
        False,
    ),
    "a rollback that is over": (RunStatus.RUNNING, make_event(Kind.TASK_STEP, name="rollback", status="failed"), True),
    "a yes": (RunStatus.AWAITING_APPROVAL, make_event(Kind.APPROVAL_APPROVED), True),
    "a cancel": (RunStatus.RUNNING, make_event(Kind.RUN_CANCELLED, run_id=str(RUN)), True),
    "its own status": (
        RunStatus.RUNNING,
        make_event(Kind.RUN_STATUS, run_id=str(RUN), status="awaiting_approval"),
        False,
    ),
}


@pytest.mark.parametrize(("status", "event", "is_news"), list(NEWS.values()), ids=list(NEWS))
async def test_a_run_is_looked_at_after_what_may_lead_on(status: RunStatus, event: Event, is_news: bool) -> None:
    runs = await known(status)

    runs.heard([event])

    assert runs.take(limit=10) == ([RUN] if is_news else [])


async def test_it_listens_only_while_a_run_is_open() -> None:
    runs = OpenRuns()
    assert not runs.listens

    runs.add(RUN, TRACE)
    assert runs.listens
    runs.heard([make_event(Kind.RUN_STATUS, run_id=str(RUN), status="failed")])

    assert not runs.listens
    assert RUN not in runs


async def test_two_runs_of_one_trace_are_both_looked_at() -> None:
    runs, other = await known(), uuid4()
    runs.add(other, TRACE)

    runs.heard([make_event(Kind.TASK_COMPLETED)])
    assert set(runs.take(limit=10)) == {RUN, other}
    runs.forget(other)
    runs.heard([make_event(Kind.TASK_COMPLETED)])

    assert runs.take(limit=10) == [RUN]


async def test_a_sweep_has_only_those_looked_at_that_have_changed() -> None:
    runs = OpenRuns()
    seen: list[list[UUID]] = []
    steps: list[Callable[[], None]] = [
        lambda: runs.swept([Pending(RUN, TRACE, "a")]),
        lambda: runs.swept([Pending(RUN, TRACE, "a")]),
        lambda: runs.swept([Pending(RUN, TRACE, "b")]),
        lambda: runs.looks_unlike(RUN),
        lambda: runs.swept([Pending(RUN, TRACE, "b")]),
    ]

    for step in steps:
        step()
        seen.append(runs.take(limit=10))

    assert seen == [[RUN], [], [RUN], [], [RUN]]


async def test_what_a_sweep_does_not_see_any_more_is_forgotten_unless_it_is_newer() -> None:
    runs = await known()

    runs.keep(set(), since=0.0)
    newer = RUN in runs
    runs.keep(set(), since=float("inf"))

    assert newer
    assert RUN not in runs


async def test_a_turn_takes_no_more_than_it_may() -> None:
    runs = OpenRuns()
    ids = [uuid4() for _ in range(3)]
    for run_id in ids:
        runs.due(run_id)

    assert runs.take(limit=2) == ids[:2]
    assert runs.take(limit=2) == ids[2:]
