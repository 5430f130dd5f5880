"""No work is leased to an agent whose pause or drain was answered, also when both come at the same moment."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from common.lifecycle import Status
from common.loop import Wake
from orchestrator.database.pool import Pool
from orchestrator.events import queries as events
from orchestrator.registry.fleet import FleetService
from tests.factories import make_new_task
from tests.integration.orchestrator.at_once import meanwhile
from tests.integration.orchestrator.on_credit import LEASE, Agent, Orchestrator, statuses
from tests.integration.orchestrator.test_plain import before

Hold = Callable[[FleetService, UUID], Awaitable[object]]
HOLDING: dict[str, Hold] = {
    "paused": lambda fleet, agent_id: fleet.pause(agent_id, until=timedelta(minutes=5), note="", by="ann"),
    "drained": lambda fleet, agent_id: fleet.drain(agent_id, note="", by="ann"),
}


@pytest.mark.parametrize("hold", HOLDING.values(), ids=HOLDING)
@pytest.mark.parametrize("is_new", [True, False], ids=["new work", "work that waits"])
async def test_a_lease_that_waits_for_the_order_that_holds_its_agent_back_is_not_given(
    at: Orchestrator, pool: Pool, monkeypatch: pytest.MonkeyPatch, hold: Hold, is_new: bool
) -> None:
    fleet, agent, task = FleetService(pool, Wake(), offline_after=LEASE), Agent(), make_new_task()
    await at.hears(agent)
    if not is_new:
        await at.tasks.dispatch([task], by="caller")
    leasing: list[asyncio.Task[Any]] = []

    async def lease() -> None:
        leasing.append(await meanwhile(pool, at.dispatch(task) if is_new else at.giving.by_credit()))

    before(monkeypatch, events, "append", lease)
    await hold(fleet, agent.agent_id)
    [done] = await asyncio.gather(*leasing)

    assert done.leased == []
    assert await statuses(at, task) == [Status.PENDING]
