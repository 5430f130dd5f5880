"""Whatever happens in the middle of a change to tasks with keys: nothing strands, and no more go than may."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from common.lifecycle import Status
from common.messages import ResultStatus
from orchestrator.approvals.asking import Consent
from orchestrator.database.pool import Connection, Pool
from orchestrator.events import queries as events
from orchestrator.events.model import Kind
from orchestrator.keys import admission
from orchestrator.keys.service import KeyService
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.model import Identity, NewTask, Task
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task, make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.at_once import meanwhile
from tests.integration.orchestrator.ledger import kinds_of
from tests.integration.orchestrator.on_credit import Agent, Orchestrator, ids
from tests.integration.orchestrator.test_keys import limited, on_the_way, ordered, start
from tests.integration.orchestrator.test_plain import before

OVER_AT_ONCE = timedelta(0)
KEYS: dict[str, dict[str, Any]] = {
    "ordering": {"ordering_key": "web-1"},
    "concurrency": {"concurrency_key": "pulls", "concurrency_limit": 1},
}
ONE_AT_A_TIME = pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)


@dataclass
class Site:
    """The services that end tasks."""

    pool: Pool
    tasks: TaskService
    leases: LeaseService


@pytest.fixture
def site(pool: Pool, tasks: TaskService, leases: LeaseService) -> Site:
    return Site(pool, tasks, leases)


# Each prepares a task that waits, and returns what ends it, or frees its key.
Ending = Callable[[Site, UUID], Awaitable[Callable[[], Awaitable[object]]]]


async def by_its_result(site: Site, task_id: UUID) -> Callable[[], Awaitable[object]]:
    agent_id = await start(site.pool, task_id)
    return lambda: site.leases.accept([make_result(task_id, agent_id)])


async def by_losing_its_lease(site: Site, task_id: UUID) -> Callable[[], Awaitable[object]]:
    await lease_to(site.pool, task_id, lease=OVER_AT_ONCE)
    return lambda: site.leases.reap(limit=10)


async def by_a_cancel(site: Site, task_id: UUID) -> Callable[[], Awaitable[object]]:
    return lambda: site.tasks.cancel(task_id, by="ann")


async def by_a_cancel_of_its_trace(site: Site, task_id: UUID) -> Callable[[], Awaitable[object]]:
    trace_id = (await site.tasks.get(task_id)).trace_id
    return lambda: site.tasks.cancel_trace(trace_id, by="ann")


async def by_the_report_that_it_is_stopped(site: Site, task_id: UUID) -> Callable[[], Awaitable[object]]:
    agent_id = await start(site.pool, task_id)
    await site.tasks.cancel(task_id, by="ann")
    return lambda: site.leases.accept([make_result(task_id, agent_id, status=ResultStatus.CANCELLED)])


async def by_the_end_of_the_lease_that_it_had(site: Site, task_id: UUID) -> Callable[[], Awaitable[object]]:
    await lease_to(site.pool, task_id, lease=OVER_AT_ONCE)
    await site.tasks.cancel(task_id, by="ann")
    return lambda: KeyService(site.pool).free_overdue(limit=10)


async def by_waiting_too_long(site: Site, task_id: UUID) -> Callable[[], Awaitable[object]]:
    return lambda: site.tasks.expire(limit=10)


ENDINGS: list[Ending] = [
    by_its_result,
    by_losing_its_lease,
    by_a_cancel,
    by_a_cancel_of_its_trace,
    by_the_report_that_it_is_stopped,
    by_the_end_of_the_lease_that_it_had,
    by_waiting_too_long,
]


def begun_by(pool: Pool, rivals: list["asyncio.Task[Any]"], does: Callable[[], Awaitable[Any]]) -> Any:
    """Return what begins something in the middle of something else, as far as locks let it."""

    async def begin() -> None:
        async def rival() -> Any:
            return await does()

        rivals.append(await meanwhile(pool, rival()))

    return begin


async def end_of(rivals: Iterable["asyncio.Task[Any]"]) -> None:
    await asyncio.gather(*rivals)


@ONE_AT_A_TIME
async def test_a_task_that_is_dispatched_while_the_one_before_it_ends_goes(
    site: Site, monkeypatch: pytest.MonkeyPatch, key: dict[str, Any]
) -> None:
    first, second = make_new_task(**key), make_new_task(**key)
    await site.tasks.dispatch([first], by="caller")
    end, rivals = await by_its_result(site, first.task_id), list["asyncio.Task[Any]"]()
    dispatch = begun_by(site.pool, rivals, lambda: site.tasks.dispatch([second], by="caller"))
    before(monkeypatch, events, "append", dispatch)

    await end()
    await end_of(rivals)

    assert await on_the_way(site.pool) == [second.task_id]


@ONE_AT_A_TIME
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
async def test_a_task_goes_when_the_one_before_it_ends_while_it_is_dispatched(
    site: Site, monkeypatch: pytest.MonkeyPatch, key: dict[str, Any], ending: Ending
) -> None:
    patience = timedelta(microseconds=1) if ending is by_waiting_too_long else None
    first, second = make_new_task(**key, expires_after=patience), make_new_task(**key)
    await site.tasks.dispatch([first], by="caller")
    end, rivals = await ending(site, first.task_id), list["asyncio.Task[Any]"]()
    before(monkeypatch, events, "append", begun_by(site.pool, rivals, end))

    await site.tasks.dispatch([second], by="caller")
    await end_of(rivals)

    assert await on_the_way(site.pool) == [second.task_id]


async def test_of_two_tasks_of_an_ordering_key_that_are_dispatched_at_once_the_first_goes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, rivals = ordered(), ordered(), list["asyncio.Task[Any]"]()
    dispatch = begun_by(site.pool, rivals, lambda: site.tasks.dispatch([second], by="caller"))
    before(monkeypatch, events, "append", dispatch)

    await site.tasks.dispatch([first], by="caller")
    await end_of(rivals)

    assert await on_the_way(site.pool) == [first.task_id]


async def test_two_tasks_of_a_concurrency_key_that_end_at_once_let_two_go(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [limited(2) for _ in range(4)]
    await site.tasks.dispatch(made, by="caller")
    end_one, end_other = [await by_its_result(site, task.task_id) for task in made[:2]]
    rivals: list[asyncio.Task[Any]] = []
    before(monkeypatch, events, "append", begun_by(site.pool, rivals, end_other))

    await end_one()
    await end_of(rivals)

    assert await on_the_way(site.pool) == ids(*made[2:])


async def test_the_next_of_an_ordering_key_goes_when_its_limit_makes_room_at_that_moment(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, first, second = limited(1, "other"), ordered(), limited(1, "other", ordering_key="web-1")
    await site.tasks.dispatch([busy, first, second], by="caller")
    end_first, end_busy = [await by_its_result(site, task.task_id) for task in (first, busy)]
    rivals: list[asyncio.Task[Any]] = []
    before(monkeypatch, events, "append", begun_by(site.pool, rivals, end_busy))

    await end_first()
    await end_of(rivals)

    assert await on_the_way(site.pool) == [second.task_id]


async def test_a_dispatch_behind_a_task_that_waits_for_its_limit_leaves_that_task_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, first, second = limited(1, "other"), limited(1, "other", ordering_key="web-1"), ordered()
    await site.tasks.dispatch([busy, first], by="caller")
    end_busy, rivals = await by_its_result(site, busy.task_id), list["asyncio.Task[Any]"]()
    dispatch = begun_by(site.pool, rivals, lambda: site.tasks.dispatch([second], by="caller"))
    ended_at_once: list[bool] = []

    async def look() -> None:
        await dispatch()
        ended_at_once.extend(rival.done() for rival in rivals)

    before(monkeypatch, events, "append", look)
    await end_busy()
    await end_of(rivals)

    assert ended_at_once == [True]
    assert await on_the_way(site.pool) == [first.task_id]


async def test_a_lower_limit_takes_no_task_back_that_is_leased_at_that_moment(
    at: Orchestrator, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, leased, held_back, new = limited(3), limited(3), limited(3), limited(1)
    rivals, use = list["asyncio.Task[Any]"](), Consent.use
    await at.tasks.dispatch([running, leased, held_back], by="caller")
    await at.hears(Agent(slots=1))
    assert list(await at.give()) == [running.task_id]
    await at.hears(Agent(slots=1))
    lower = begun_by(pool, rivals, lambda: at.tasks.dispatch([new], by="caller"))

    async def lower_and_use(consent: Consent, db: Connection, works: Iterable[Task]) -> None:
        await lower()
        await use(consent, db, works)

    with monkeypatch.context() as patch:
        patch.setattr(Consent, "use", lower_and_use)
        await at.giving.by_credit()
    [[answer]] = await asyncio.gather(*rivals)

    assert isinstance(answer, Identity)
    assert (await at.tasks.get(leased.task_id)).status is Status.RUNNING
    assert await on_the_way(pool) == []


async def test_a_task_that_is_cancelled_when_its_time_is_over_is_cancelled_once(
    site: Site, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = ordered(expires_after=timedelta(microseconds=1))
    await site.tasks.dispatch([task], by="caller")
    before(monkeypatch, admission, "hold_for", lambda: site.tasks.cancel(task.task_id, by="ann"))

    assert await site.tasks.expire(limit=10) == 0

    assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CANCELLED]


async def test_a_task_that_is_cancelled_when_its_fan_out_is_stopped_is_cancelled_once(
    site: Site, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, cancelled, stopped = [part_of_a_fan_out() for _ in range(3)]
    await site.tasks.dispatch([failing, cancelled, stopped], by="caller")
    agent_id = await start(pool, failing.task_id)
    await site.leases.accept([make_result(failing.task_id, agent_id, status=ResultStatus.FAILED)])
    before(monkeypatch, admission, "hold_for", lambda: site.tasks.cancel(cancelled.task_id, by="ann"))

    assert await site.tasks.stop_fan_outs(limit=10) == 1

    for task in (cancelled, stopped):
        assert await kinds_of(pool, task.task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CANCELLED]


def part_of_a_fan_out() -> NewTask:
    """Return one of the tasks of a fan-out that one failure stops."""
    return limited(1, "fan-out:one", stop_after=1)
