"""What happens to an agent while its heartbeat is being stored: the heartbeat changes nothing that it may not."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from common.loop import Wake
from orchestrator.database.pool import Pool
from orchestrator.registry import queries
from orchestrator.registry.fleet import FleetService
from orchestrator.registry.service import RegistryService
from tests.factories import make_heartbeat
from tests.integration.orchestrator.at_once import meanwhile
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import events_of
from tests.integration.orchestrator.on_credit import Agent, Orchestrator, account
from tests.integration.orchestrator.test_plain import before
from tests.integration.orchestrator.test_shut_out import disable, named

RESTARTED = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize("write", ["beat", "record"])
async def test_a_heartbeat_of_an_agent_that_registers_in_another_pool_meanwhile_changes_and_tells_nothing(
    registry: RegistryService, pool: Pool, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    first = make_heartbeat(agent_type="desktop", labels={"zone": "eu"})
    other = first.model_copy(update={"agent_type": "infra", "labels": {"zone": "us"}})
    before(monkeypatch, queries, write, lambda: registry.record([first]))

    await registry.record([other])

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert (agent.agent_type, agent.labels) == ("desktop", {"zone": "eu"})
    assert [event.data["agent_type"] for event in await events_of(pool)] == ["desktop"]


@pytest.mark.parametrize(("write", "news"), [("beat", {}), ("lock", {"hostname": "other"})])
async def test_a_heartbeat_of_an_agent_that_is_shut_out_meanwhile_changes_nothing(
    registry: RegistryService, pool: Pool, monkeypatch: pytest.MonkeyPatch, write: str, news: dict[str, Any]
) -> None:
    agent_id = await named(pool, "web-1")
    await registry.record([make_heartbeat(agent_id, labels={"zone": "eu"})])
    before(monkeypatch, queries, write, lambda: disable(pool, agent_id))

    await registry.record([make_heartbeat(agent_id, labels={"zone": "us"}, **news)])

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert (agent.labels, agent.hostname) == ({"zone": "eu"}, "host-1")


async def test_a_heartbeat_of_a_process_that_is_replaced_meanwhile_asks_for_nothing(
    at: Orchestrator, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = Agent(slots=8), Agent(slots=1)
    newer.agent_id = older.agent_id
    await at.hears(older)
    before(monkeypatch, queries, "beat", lambda: at.hears(newer))

    await at.hears(older)

    assert (await account(pool, newer))["credit_limit"] == 1


async def test_a_drain_that_is_ordered_while_its_agent_comes_back_from_the_one_before_holds(
    registry: RegistryService, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, heartbeat = FleetService(pool, Wake(), offline_after=LEASE), make_heartbeat()
    await registry.record([heartbeat])
    await fleet.drain(heartbeat.agent_id, note="first", by="ann")
    drains: list[asyncio.Task[Any]] = []

    async def drain() -> None:
        drains.append(await meanwhile(pool, fleet.drain(heartbeat.agent_id, note="second", by="ben")))

    before(monkeypatch, queries, "record", drain)
    await registry.record([heartbeat.model_copy(update={"started_at": RESTARTED})])
    await asyncio.gather(*drains)

    [agent] = await registry.list_agents(agent_type=None, status=None)
    assert (agent.draining, agent.drain_note) == (True, "second")
