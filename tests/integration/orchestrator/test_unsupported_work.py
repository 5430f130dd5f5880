"""Work that no agent takes is set aside and holds up nothing, in any amount; what some take goes to those."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from common.rest.why import BlockerKind
from orchestrator.database.pool import Pool
from orchestrator.leases import waiting_queries
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.model import NewTask
from orchestrator.tasks.service import TaskService
from orchestrator.why.service import Failures, WhyService
from tests.factories import make_heartbeat, make_new_task
from tests.integration.orchestrator.on_credit import Agent, Orchestrator, agents_of
from tests.integration.orchestrator.test_deep_backlogs import DEPTH, FEW_PAGES, READY, pages_read

OFFLINE = timedelta(seconds=30)
NAMED_RENDER = "UPDATE task SET work_type = 'render'"


async def dispatched(tasks: TaskService, count: int, work_type: str, **values: Any) -> list[NewTask]:
    made = [make_new_task(work_type=work_type, **values) for _ in range(count)]
    await tasks.dispatch(made, by="caller")
    return made


def ids(tasks: list[NewTask]) -> list[UUID]:
    return [task.task_id for task in tasks]


async def test_work_that_no_agent_offers_goes_to_nobody_and_other_work_goes_at_once(at: Orchestrator) -> None:
    agent = Agent(work_types=["echo"])
    await at.hears(agent)
    await dispatched(at.tasks, 200, "render", priority=5)
    [other] = await dispatched(at.tasks, 1, "echo")

    assert await at.give() == {other.task_id: agent.agent_id}


@pytest.mark.own_ledger
async def test_twenty_thousand_tasks_that_no_agent_offers_are_passed_over_by_reading_a_few_pages(
    at: Orchestrator, pool: Pool
) -> None:
    agent = Agent(work_types=["echo"])
    await at.hears(agent)
    async with pool.acquire() as db:
        await db.execute(READY, DEPTH)
        await db.execute(NAMED_RENDER)
        await db.execute("VACUUM task")
    [other] = await dispatched(at.tasks, 1, "echo")

    read = await pages_read(pool, waiting_queries.LINES)

    assert read < FEW_PAGES
    assert await at.give() == {other.task_id: agent.agent_id}


async def test_what_was_set_aside_goes_to_an_agent_that_offers_it(at: Orchestrator) -> None:
    agent = Agent(slots=3, work_types=["echo"])
    await at.hears(agent)
    made = await dispatched(at.tasks, 3, "render")
    assert await at.give() == {}

    agent.values["work_types"] = ["echo", "render"]
    await at.hears(agent)

    assert list(await at.give()) == ids(made)


async def test_work_that_only_some_agents_of_a_pool_offer_goes_to_those_alone(at: Orchestrator) -> None:
    able, unable = Agent(slots=2, work_types=["echo", "render"]), Agent(slots=9, work_types=["echo"])
    await at.hears(able, unable)
    placed = await dispatched(at.tasks, 3, "render")
    [common] = await dispatched(at.tasks, 1, "echo")

    given = await at.give()

    assert given == {**dict.fromkeys(ids(placed)[:2], able.agent_id), common.task_id: unable.agent_id}


async def test_an_agent_that_names_no_work_takes_what_another_of_its_pool_does_not(at: Orchestrator) -> None:
    choosy, willing = Agent(slots=9, work_types=["echo"]), Agent(slots=1, work_types=[])
    await at.hears(choosy, willing)
    [placed] = await dispatched(at.tasks, 1, "render")
    [common] = await dispatched(at.tasks, 1, "echo")

    assert await at.give() == {placed.task_id: willing.agent_id, common.task_id: choosy.agent_id}


async def test_an_agent_whose_clock_is_off_leaves_the_work_of_its_pool_to_others(at: Orchestrator) -> None:
    off, right = Agent(work_types=["echo"]), Agent(work_types=["echo"])
    await at.hears(off)
    wrong_time = datetime.now(UTC) + timedelta(hours=1)
    await at.registry.record([make_heartbeat(off.agent_id, boot_id=off.session, sent_at=wrong_time)])
    [task] = await dispatched(at.tasks, 1, "echo")

    alone = await at.give()
    await at.hears(right)

    assert alone == {}
    assert await at.give() == {task.task_id: right.agent_id}


async def test_the_work_of_a_pool_goes_to_an_agent_again_when_its_clock_is_right(at: Orchestrator) -> None:
    agent = Agent(work_types=["echo"])
    await at.hears(agent)
    wrong_time = datetime.now(UTC) - timedelta(hours=1)
    await at.registry.record([make_heartbeat(agent.agent_id, boot_id=agent.session, sent_at=wrong_time)])
    [task] = await dispatched(at.tasks, 1, "echo")
    assert await at.give() == {}

    await at.registry.record([make_heartbeat(agent.agent_id, boot_id=agent.session, sent_at=datetime.now(UTC))])

    assert await at.give() == {task.task_id: agent.agent_id}


async def test_aimed_work_that_its_agent_does_not_offer_does_not_hold_up_what_it_offers(at: Orchestrator) -> None:
    agent = Agent(slots=2, work_types=["echo"])
    await at.hears(agent)
    aim = {"agent_id": str(agent.agent_id)}
    await dispatched(at.tasks, 5, "render", hints=aim)
    [able] = await dispatched(at.tasks, 1, "echo", hints=aim)

    assert await at.give() == {able.task_id: agent.agent_id}


async def test_waiting_work_that_no_agent_offers_does_not_keep_new_work_from_going_at_once(at: Orchestrator) -> None:
    agent, new = Agent(work_types=["echo"]), make_new_task()
    await at.hears(agent)
    await dispatched(at.tasks, 20, "render")
    await at.give()

    done = await at.dispatch(new)

    assert agents_of(done.leased) == {new.task_id: agent.agent_id}


async def test_why_says_that_it_is_set_aside_and_does_not_count_it_before_others(
    tasks: TaskService, registry: RegistryService, pool: Pool
) -> None:
    async def well() -> Failures:
        return Failures(None, None)

    why = WhyService(pool, offline_after=OFFLINE, failures=well)
    await registry.record([make_heartbeat(hostname="web", work_types=["echo"])])
    unoffered = await dispatched(tasks, 200, "render")
    [other] = await dispatched(tasks, 1, "echo")

    aside = await why.explain(unoffered[0].task_id)
    next_one = await why.explain(other.task_id)

    [blocker] = aside.blockers
    assert blocker.kind is BlockerKind.NOT_OFFERED
    assert "offers 'render': web" in blocker.message
    assert blocker.message.endswith("The task is set aside until an agent offers it.")
    [queued] = next_one.blockers
    assert (queued.kind, queued.ahead) == (BlockerKind.QUEUED, 0)
