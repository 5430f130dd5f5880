"""Which agents could take work now, by the labels and the leases that place it: real agents on real servers."""

from typing import Any

import pytest

from chiffon.errors import ApiError
from chiffon.models import Capacity
from tests.eventually import eventually
from tests.integration.system.deployment import System

pytestmark = pytest.mark.xdist_group("system/capacity")


async def start(system: System, name: str, **settings: Any) -> None:
    await system.start_agent(name=name, **settings)

    async def is_there() -> bool:
        return name in {agent.name for agent in await system.agents_ready()}

    await eventually(is_there, timeout=30)


def by_name(found: Capacity) -> dict[str, tuple[bool, int]]:
    return {agent.name: (agent.can, agent.free_slots) for agent in found.agents if "offline" not in str(agent.reasons)}


async def test_an_agent_that_has_what_is_asked_for_can_and_one_that_lacks_it_says_what_it_has(system: System) -> None:
    await start(system, "small", slots=2, labels={"gpu_memory_gb": 8, "zone": "eu"})
    await start(system, "large", slots=3, labels={"gpu_memory_gb": 48, "zone": "eu"})

    found = await system.client.capacity({"gpu_memory_gb": 24, "zone": "eu"}, work_type="echo")

    assert by_name(found) == {"large": (True, 3), "small": (False, 2)}
    assert found.free_slots == 3
    [small] = [agent for agent in found.agents if agent.name == "small"]
    assert small.reasons == ["has gpu_memory_gb = 8, wanted: gpu_memory_gb >= 24"]


async def test_what_runs_takes_a_slot_and_an_agent_without_one_cannot(system: System) -> None:
    await start(system, "web-1", slots=1)
    task = await system.client.dispatch("shell_script", {"argv": ["sleep", "60"]})

    async def is_full() -> bool:
        return by_name(await system.client.capacity()).get("web-1") == (False, 0)

    await eventually(is_full, timeout=30)
    [agent] = [agent for agent in (await system.client.capacity()).agents if agent.name == "web-1"]
    assert agent.reasons == ["runs 1 of 1"]

    async def is_busy() -> bool:
        [shown] = await system.agents_online()
        return (shown.status, shown.free_slots) == ("busy", 0)

    await eventually(is_busy, timeout=30)
    await system.client.cancel(task.task_id)


async def test_a_paused_agent_cannot_and_says_who_paused_it_and_why(system: System) -> None:
    await start(system, "web-1")
    [agent] = await system.agents_online()

    await system.client.pause_agent(agent.agent_id, note="new kernel")

    [found] = [one for one in (await system.client.capacity()).agents if one.agent_id == agent.agent_id]
    assert not found.can
    assert found.reasons[0].startswith("paused")
    assert "new kernel" in found.reasons[0]


async def test_work_that_no_agent_offers_fits_none(system: System) -> None:
    await start(system, "web-1")

    found = await system.client.capacity(work_type="bake_bread")

    assert found.free_slots == 0
    [agent] = [one for one in found.agents if one.name == "web-1" and "offline" not in str(one.reasons)]
    assert agent.reasons == ["offers no bake_bread"]


@pytest.mark.parametrize("require", ["cores", "=8", "bad name=1"])
async def test_a_requirement_that_is_none_is_refused_by_its_name(system: System, require: str) -> None:
    with pytest.raises(ApiError) as refused:
        await system.client.http.get("/api/v1/agents/capacity", {"require": require})

    assert (refused.value.status, refused.value.error_code) == (422, 1002)
    assert "query.require" in str(refused.value)
