"""The registry knows which agents there are, and notices when one falls silent."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from common.messages import AgentStatus, StatusUpdate
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.registry import queries
from orchestrator.registry.service import RegistryService
from tests.factories import make_heartbeat
from tests.integration.orchestrator.ledger import events_of


async def silence_everyone(pool: Pool) -> None:
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET last_heartbeat_at = now() - interval '31 seconds'")


async def test_the_first_heartbeat_registers_an_agent(registry: RegistryService, pool: Pool) -> None:
    heartbeat = make_heartbeat(current_tasks=[uuid4(), uuid4()], work_types=["echo", "shell_script"])

    await registry.record([heartbeat])

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert (agent.agent_id, agent.status, agent.slots) == (heartbeat.agent_id, AgentStatus.ONLINE, 2)
    assert list(agent.current_tasks) == heartbeat.current_tasks
    assert list(agent.work_types) == ["echo", "shell_script"]
    assert [event.kind for event in await events_of(pool)] == [Kind.AGENT_REGISTERED]


@pytest.mark.parametrize("work_types", [["a,b", "c"], [""], [], [' "quoted" {}\\ ', "NULL"], ["größe"]], ids=str)
async def test_the_work_types_of_an_agent_are_kept_as_it_names_them(
    registry: RegistryService, pool: Pool, work_types: list[str]
) -> None:
    heartbeat = make_heartbeat(work_types=work_types)

    await registry.record([heartbeat, make_heartbeat()])
    async with pool.acquire() as db:
        without_news = await queries.beat(db, [heartbeat], {}, skew=timedelta(minutes=5))

    agents = await registry.list_agents(agent_type=None, status=None)
    [agent] = [agent for agent in agents if agent.agent_id == heartbeat.agent_id]
    assert agent.work_types == work_types
    assert [room.agent_id for room in without_news] == [heartbeat.agent_id], "the same again is no news"


async def test_schemas_that_were_announced_once_are_kept_and_a_later_word_replaces_them(
    registry: RegistryService,
) -> None:
    first = make_heartbeat(work_types=["render"], schemas={"render": {"description": "old"}})
    plain = first.model_copy(update={"schemas": {}})
    restarted = first.model_copy(update={"boot_id": uuid4(), "schemas": {"render": {"description": "new"}}})

    seen = []
    for heartbeat in (first, plain, plain.model_copy(update={"status": AgentStatus.BUSY}), restarted, plain):
        await registry.record([heartbeat])
        [agent] = await registry.list_agents(agent_type=None, status=None)
        seen.append(agent.schemas["render"]["description"])

    assert seen == ["old", "old", "old", "new", "new"]
    assert agent.resources["cpu_percent"] == first.resources.cpu_percent


async def test_events_tell_of_changes_and_not_of_every_heartbeat(registry: RegistryService, pool: Pool) -> None:
    first = make_heartbeat()
    busy = first.model_copy(update={"status": AgentStatus.BUSY})
    drained = first.model_copy(update={"status": AgentStatus.DRAINING})
    restarted = first.model_copy(update={"started_at": datetime(2026, 11, 23, tzinfo=UTC)})

    for heartbeat in (first, first, busy, busy, first, drained, drained, restarted):
        await registry.record([heartbeat])

    assert [event.kind for event in await events_of(pool)] == [
        Kind.AGENT_REGISTERED,
        Kind.AGENT_STATUS,
        Kind.AGENT_REGISTERED,
    ]


@pytest.mark.own_ledger
async def test_a_heartbeat_that_brings_no_news_says_how_the_agent_is_and_touches_no_index(
    registry: RegistryService, pool: Pool
) -> None:
    fleet = [make_heartbeat() for _ in range(10)]
    await registry.record(fleet)
    task_id = uuid4()
    later = [
        one.model_copy(
            update={
                "current_tasks": [task_id],
                "resources": one.resources.model_copy(update={"cpu_percent": 99.0, "gpu_vram_available_gb": 4.0}),
            }
        )
        for one in fleet
    ]

    await registry.record(later)

    agents = await registry.list_agents(agent_type=None, status=None)
    assert {agent.agent_id for agent in agents} == {one.agent_id for one in fleet}
    assert {tuple(agent.current_tasks) for agent in agents} == {(task_id,)}
    assert {agent.resources["cpu_percent"] for agent in agents} == {99.0}
    assert {agent.labels["gpu_vram_available_gb"] for agent in agents} == {4.0}
    async with pool.acquire() as db:
        await db.execute("SELECT pg_stat_force_next_flush()")
        changed = await db.fetchrow("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'agent'")
    assert changed is not None
    assert tuple(changed) == (10, 10)


@pytest.mark.parametrize(
    "news",
    [
        {"slots": 7},
        {"work_types": ["echo", "ansible"]},
        {"hostname": "other"},
        {"version": "9"},
    ],
    ids=lambda news: next(iter(news)),
)
async def test_a_process_that_says_something_new_of_itself_is_believed(
    registry: RegistryService, news: dict[str, Any]
) -> None:
    heartbeat = make_heartbeat()
    await registry.record([heartbeat])

    await registry.record([heartbeat.model_copy(update=news)])

    [agent] = await registry.list_agents(agent_type=None, status=None)
    [(name, value)] = news.items()
    assert getattr(agent, name) == value


async def test_of_two_heartbeats_in_one_batch_the_later_counts(registry: RegistryService) -> None:
    first = make_heartbeat()

    await registry.record([first, first.model_copy(update={"status": AgentStatus.DRAINING})])

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert agent.status is AgentStatus.DRAINING


async def test_agents_are_listed_by_type_and_status(registry: RegistryService) -> None:
    infra, desktop = make_heartbeat(), make_heartbeat(agent_type="desktop", status=AgentStatus.BUSY)
    await registry.record([infra, desktop])

    async def ids(agent_type: str | None, status: AgentStatus | None) -> list[object]:
        return [agent.agent_id for agent in await registry.list_agents(agent_type=agent_type, status=status)]

    assert await ids("desktop", None) == [desktop.agent_id]
    assert await ids(None, AgentStatus.ONLINE) == [infra.agent_id]
    assert await ids("desktop", AgentStatus.ONLINE) == []


async def test_a_silent_agent_is_offline_and_this_is_told_once(registry: RegistryService, pool: Pool) -> None:
    heartbeat = make_heartbeat()
    await registry.record([heartbeat])
    assert await registry.is_online(heartbeat.agent_id)

    await silence_everyone(pool)

    assert not await registry.is_online(heartbeat.agent_id)
    [agent] = await registry.list_agents(agent_type=None, status=AgentStatus.OFFLINE)
    assert agent.agent_id == heartbeat.agent_id
    silent = [await registry.mark_silent(limit=10), await registry.mark_silent(limit=10)]
    assert silent == [[(heartbeat.agent_type, heartbeat.agent_id)], []]
    assert (await events_of(pool))[-1].data == {"status": "offline"}


async def test_an_agent_that_was_heard_lately_is_not_taken_for_silent(registry: RegistryService) -> None:
    await registry.record([make_heartbeat()])

    assert await registry.mark_silent(limit=10) == []


async def test_an_agent_that_was_never_heard_of_is_not_online(registry: RegistryService) -> None:
    assert not await registry.is_online(uuid4())


async def test_an_agent_that_comes_back_is_online_again(registry: RegistryService, pool: Pool) -> None:
    heartbeat = make_heartbeat()
    await registry.record([heartbeat])
    await silence_everyone(pool)
    await registry.mark_silent(limit=10)

    await registry.record([heartbeat])

    assert await registry.is_online(heartbeat.agent_id)


async def test_an_agent_that_spoke_http_may_speak_through_the_broker_when_it_is_started_again(
    registry: RegistryService, pool: Pool
) -> None:
    beat = make_heartbeat()
    await registry.record([beat])
    await pool.execute("UPDATE agent SET worker_id = 'over http'")

    async def worker_ids(update: StatusUpdate) -> list[str | None]:
        await registry.record([update])
        return [row["worker_id"] for row in await pool.fetch("SELECT worker_id FROM agent")]

    assert await worker_ids(beat) == ["over http"]
    assert await worker_ids(make_heartbeat(beat.agent_id, started_at=datetime.now(UTC))) == [None]
