"""Work goes to agents that have what it needs, wherever it was dispatched: real agents on real servers."""

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.eventually import eventually
from tests.integration.system.deployment import System

pytestmark = pytest.mark.xdist_group("system/placement")


async def agent_named(system: System, name: str) -> UUID:
    """Return the id of an agent, once it takes work."""
    found: list[UUID] = []

    async def is_ready() -> bool:
        found[:] = [agent.agent_id for agent in await system.agents_ready() if agent.hostname == name]
        return bool(found)

    await eventually(is_ready)
    return found[0]


async def test_work_goes_to_the_agent_that_has_what_it_needs(system: System) -> None:
    await system.start_agent(name="small", labels={"gpu_memory_gb": 8, "zone": "eu"})
    await system.start_agent(name="large", labels={"gpu_memory_gb": 48, "zone": "us"})
    small, large = await agent_named(system, "small"), await agent_named(system, "large")

    needs_much = [await system.client.dispatch("echo", required={"gpu_memory_gb": 24}) for _ in range(3)]
    needs_zone = await system.client.dispatch("echo", required={"zone": "eu"})
    rather = await system.client.dispatch("echo", preferred={"zone": "us"})
    certain = await system.client.dispatch("echo", agent_id=small)
    tasks = await system.finished(*(one.task_id for one in (*needs_much, needs_zone, rather, certain)))

    assert [task.agent_id for task in tasks] == [large, large, large, small, large, small]
    assert {task.status for task in tasks} == {"completed"}


async def test_work_asks_for_what_the_host_measures_without_a_label_of_the_operator(system: System) -> None:
    await system.start_agent(name="host")
    await agent_named(system, "host")

    fits = await system.client.dispatch("echo", required={"cores": 1, "idle_cores": 0, "memory_free_gb": 0.01})
    too_large = await system.client.dispatch("echo", required={"cores": 100_000})
    [task] = await system.finished(fits.task_id)

    assert task.status == "completed"
    blockers = {blocker.kind: blocker.message for blocker in (await system.client.why(too_large.task_id)).blockers}
    assert "cores >= 100000" in blockers["no_suitable_agent"]


async def test_work_that_nobody_can_take_says_so_and_starts_when_somebody_can(system: System) -> None:
    await system.start_agent(name="small", labels={"gpu_memory_gb": 8})
    await agent_named(system, "small")
    task_id = (await system.client.dispatch("echo", required={"gpu_memory_gb": 24})).task_id
    for_nobody = (await system.client.dispatch("echo", agent_id=uuid4())).task_id
    others = [(await system.client.dispatch("echo")).task_id for _ in range(3)]
    await system.finished(*others)  # it holds up nobody

    blockers = {blocker.kind: blocker.message for blocker in (await system.client.why(task_id)).blockers}
    assert "gpu_memory_gb >= 24" in blockers["no_suitable_agent"]
    assert "has gpu_memory_gb = 8" in blockers["no_suitable_agent"]
    blockers = {blocker.kind: blocker.message for blocker in (await system.client.why(for_nobody)).blockers}
    assert "has ever registered" in blockers["no_suitable_agent"]

    await system.start_agent(name="large", labels={"gpu_memory_gb": 24})
    [task] = await system.finished(task_id)
    assert task.agent_id == await agent_named(system, "large")


async def test_an_agent_that_is_full_gets_its_own_work_when_a_slot_is_free(system: System, tmp_path: Path) -> None:
    await system.start_agent(name="one", slots=1)
    one = await agent_named(system, "one")
    go = tmp_path / "go"
    wait = {"script": f"until [ -e {go} ]; do sleep 0.05; done"}
    busy = await system.client.dispatch("shell_script", wait)
    await eventually(lambda: _is_running(system, busy.task_id))
    own = await system.client.dispatch("echo", agent_id=one)
    pool = [await system.client.dispatch("echo") for _ in range(3)]

    go.touch()
    tasks = await system.finished(busy.task_id, own.task_id, *(task.task_id for task in pool))

    assert {(task.status, task.agent_id) for task in tasks} == {("completed", one)}


async def _is_running(system: System, task_id: UUID) -> bool:
    return (await system.client.status(task_id)).status == "running"


@pytest.mark.parametrize(
    ("hints", "field"),
    [
        ({"agent_id": "me"}, "hints.agent_id"),
        ({"required_capabilities": {"": 1}}, "hints.required_capabilities"),
        ({"required_capabilities": {"a": {"b": 1}}}, "hints.required_capabilities"),
        ({"required_capabilities": {"a": 10**400}}, "hints.required_capabilities"),
        ({"preferred": 7}, "hints.preferred"),
    ],
)
async def test_hints_that_cannot_be_kept_name_the_field(system: System, hints: dict[str, object], field: str) -> None:
    [result] = await system.client.dispatch_batch([{"work_type": "echo", "hints": hints}])

    assert result.status_code == 422
    assert result.error is not None
    assert any(problem.field.endswith(field) for problem in result.error.errors)
