"""The registry compares clocks, and notices two processes that run with copies of one agent's state."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.messages import Credit, StatusUpdate
from common.rest.why import BlockerKind
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.outbox import queries as outbox
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from orchestrator.why.service import Failures, WhyService
from tests.factories import make_heartbeat, make_new_task
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import events_of
from tests.integration.orchestrator.on_credit import Agent, Orchestrator, gets
from tests.integration.orchestrator.statements import open_counting_pool

HOURS = timedelta(hours=5)


async def well() -> Failures:
    return Failures(None, None)


@pytest.mark.parametrize("shift", [HOURS, -HOURS], ids=["ahead", "behind"])
async def test_an_agent_whose_clock_is_off_gets_no_work_until_it_is_right_and_everybody_is_told(
    tasks: TaskService, registry: RegistryService, pool: Pool, shift: timedelta
) -> None:
    agent_id, task = uuid4(), make_new_task()
    await registry.record([make_heartbeat(agent_id, sent_at=datetime.now(UTC) + shift)])
    await tasks.dispatch([task], by="caller")

    off = await gets(pool, agent_id)
    [shown] = await registry.list_agents(agent_type=None, status=None)
    blockers = (await WhyService(pool, offline_after=LEASE, failures=well).explain(task.task_id)).blockers
    await registry.record([make_heartbeat(agent_id, sent_at=datetime.now(UTC))])
    right = await gets(pool, agent_id)

    assert off == []
    assert shown.clock_off_seconds == pytest.approx(shift.total_seconds(), abs=30)
    assert BlockerKind.AGENT_CLOCK_OFF in {blocker.kind for blocker in blockers}
    assert right == [task.task_id]
    offs = [event.data["off_by_seconds"] is not None for event in await events_of(pool) if event.kind == "agent.clock"]
    assert offs == [True, False]


@pytest.mark.parametrize("shift", [HOURS, -HOURS], ids=["ahead", "behind"])
async def test_an_agent_whose_clock_is_off_is_not_chosen_for_new_work_either(pool: Pool, shift: timedelta) -> None:
    one, agent, task = Orchestrator(pool), Agent(slots=2), make_new_task()
    await one.hears(agent)
    await one.registry.record(
        [make_heartbeat(agent.agent_id, boot_id=agent.session, sent_at=datetime.now(UTC) + shift)]
    )

    done = await one.dispatch(task)

    assert (done.leased, done.waits) == ([], True)


async def test_a_heartbeat_without_a_time_says_nothing_of_the_clock(registry: RegistryService) -> None:
    agent_id = uuid4()
    await registry.record([make_heartbeat(agent_id, sent_at=datetime.now(UTC) + HOURS)])

    await registry.record([make_heartbeat(agent_id)])

    [shown] = await registry.list_agents(agent_type=None, status=None)
    assert shown.clock_off_seconds is not None


class Process:
    """One process of an agent, which beats now and then."""

    def __init__(self, registry: RegistryService, agent_id: UUID) -> None:
        self._registry = registry
        self.agent_id = agent_id
        self.boot_id = uuid4()
        self._started_at = datetime.now(UTC)

    def update(self, **values: Any) -> StatusUpdate:
        given = {"boot_id": self.boot_id, "started_at": self._started_at, "sent_at": datetime.now(UTC), **values}
        return make_heartbeat(self.agent_id, **given)

    async def beat(self, **values: Any) -> dict[UUID, Any]:
        return await self.look(sent_at=datetime.now(UTC), **values)

    async def look(self, **values: Any) -> dict[UUID, Any]:
        given = {"boot_id": self.boot_id, "started_at": self._started_at, **values}
        return dict((await self._registry.record([make_heartbeat(self.agent_id, **given)])).refused)


async def test_the_later_of_two_processes_with_one_identity_is_refused_and_an_event_says_why(
    registry: RegistryService, pool: Pool
) -> None:
    agent_id = uuid4()
    first = Process(registry, agent_id)
    await first.beat()
    second = Process(registry, agent_id)
    assert await second.beat() == {}, "it may be the first one, started again"

    found = await first.beat()
    again = await second.beat(hostname="copy")
    await first.beat()

    assert found[agent_id].boot_id == second.boot_id
    assert again[agent_id].boot_id == second.boot_id
    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.hostname == "host-1", "the word of the refused one does not count"
    [event] = [event for event in await events_of(pool) if event.kind == Kind.AGENT_DUPLICATE]
    assert event.data["refused"] == str(second.boot_id)
    async with pool.acquire() as db:
        orders = await outbox.take_orders(db, limit=9, again_after=LEASE)
    assert {order.body["payload"]["order"]["boot_id"] for order in orders} == {str(second.boot_id)}


async def test_a_fleet_that_was_copied_costs_no_more_statements_than_one_agent_of_it(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_counting_pool(ledger_url, monkeypatch) as (pool, statements):
        registry = RegistryService(pool, offline_after=LEASE)

        async def asked_for(count: int) -> list[str]:
            firsts = [Process(registry, uuid4()) for _ in range(count)]
            for first in firsts:
                await first.beat()
                await Process(registry, first.agent_id).beat()
            with statements.counted() as asked:
                found = (await registry.record([first.update() for first in firsts])).refused
            assert found.keys() == {first.agent_id for first in firsts}
            return asked

        assert await asked_for(5) == await asked_for(1)


@pytest.mark.parametrize("was", ["after another process", "after its row was lost", "with an older row"])
async def test_a_process_that_is_heard_again_has_room_for_no_more_than_its_slots(
    registry: RegistryService, pool: Pool, was: str
) -> None:
    process = Process(registry, uuid4())

    def says(number: int, limit: int, received: int) -> Credit:
        return Credit(session=process.boot_id, number=number, limit=limit, received=received)

    await registry.record([process.update(credit=says(1, 4, 0))])
    if was == "after another process":
        await Process(registry, process.agent_id).beat()
    elif was == "after its row was lost":
        async with pool.acquire() as db:
            await db.execute("DELETE FROM agent")

    recorded = await registry.record([process.update(credit=says(2, 1000, 997))])

    # 997 came, of which 996 have ended: of its four slots one is taken.
    assert [one.room for one in recorded.rooms] == [3]


async def test_an_agent_that_is_started_again_is_no_second_process(registry: RegistryService, pool: Pool) -> None:
    agent_id = uuid4()
    for _ in range(3):
        process = Process(registry, agent_id)
        assert await process.beat() == {}
        assert await process.beat() == {}

    assert not [event for event in await events_of(pool) if event.kind == Kind.AGENT_DUPLICATE]


async def test_a_heartbeat_that_arrives_after_its_process_was_replaced_shows_nothing(
    registry: RegistryService, pool: Pool
) -> None:
    agent_id = uuid4()
    first = Process(registry, agent_id)
    await first.beat()
    late = make_heartbeat(agent_id, boot_id=first.boot_id, sent_at=datetime.now(UTC), hostname="before")
    second = Process(registry, agent_id)
    await second.beat()

    assert (await registry.record([late])).refused == {}
    assert await second.beat() == {}
    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.hostname == "host-1"
    assert not [event for event in await events_of(pool) if event.kind == Kind.AGENT_DUPLICATE]


async def test_a_look_for_orders_that_does_not_say_when_it_was_sent_does_not_make_the_earlier_process_the_later_one(
    registry: RegistryService,
) -> None:
    """Over HTTP an agent that runs something looks for orders between its heartbeats."""
    agent_id = uuid4()
    first, second = Process(registry, agent_id), Process(registry, agent_id)
    await first.beat()
    await second.beat()

    assert await first.look() == {}
    assert await second.beat() == {}
    found = await first.beat()

    assert found[agent_id].boot_id == second.boot_id
