"""The same work on each of several agents: real agents on real servers."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from chiffon.errors import ApiError
from chiffon.models import FanOut
from common.lifecycle import Status
from tests.eventually import eventually
from tests.integration.system.deployment import System
from tests.integration.system.test_placement import agent_named

pytestmark = pytest.mark.xdist_group("system/fan_out")

NAMES = ("web-1", "web-2", "web-3", "web-4")
# Writes down when it begins and when it ends, in one file for all agents, and stays until there is a moment to see it.
SCRIPT = 'echo "begin $$" >> {log}; sleep 0.2; echo "end $$" >> {log}'


async def agents(system: System, *names: str, **settings: Any) -> None:
    for name in names:
        await system.start_agent(name=name, **settings)

    async def are_there() -> bool:
        return {agent.name for agent in await system.agents_ready()} >= set(names)

    await eventually(are_there, timeout=60)


async def outcome(system: System, fan_out_id: object) -> FanOut:
    async with asyncio.timeout(60):
        async for found in system.client.watch_fan_out(str(fan_out_id)):
            last = found
    return last


def most_at_a_time(log: Path) -> int:
    running = most = 0
    for line in log.read_text().splitlines():
        running += 1 if line.startswith("begin") else -1
        most = max(most, running)
    return most


async def test_each_agent_that_is_there_gets_one_task_and_the_answer_names_those_that_get_none(system: System) -> None:
    await agents(system, "web-1", "web-2")
    leaving = await system.start_agent(name="gone-1")
    await agent_named(system, "gone-1")
    leaving.set()

    async def is_offline() -> bool:
        return not [agent for agent in await system.agents_online() if agent.name == "gone-1"]

    await eventually(is_offline)

    sent = await system.client.dispatch("shell_script", {"argv": ["true"]}, on={"all": True})
    found = await outcome(system, sent.task_id)

    assert sorted(task.agent_name or "" for task in sent.tasks or ()) == ["web-1", "web-2"]
    assert ("gone-1", "offline") in [(one.name, one.reason) for one in sent.skipped or ()]
    assert (found.status, dict(found.counts)) == (Status.COMPLETED, {"completed": 2})
    ran = {task.agent_name: (await system.client.status(task.task_id)).agent_name for task in found.tasks}
    assert ran == {"web-1": "web-1", "web-2": "web-2"}


async def test_labels_choose_the_agents(system: System) -> None:
    await agents(system, "web-1", labels={"zone": "eu"})
    await agents(system, "web-2", labels={"zone": "us"})

    sent = await system.client.dispatch("echo", {"message": "hi"}, on={"labels": {"zone": "us"}})

    assert [task.agent_name for task in sent.tasks or ()] == ["web-2"]
    assert (await outcome(system, sent.task_id)).status == Status.COMPLETED


@pytest.mark.parametrize(("batch", "most"), [(1, 1), ("50%", 2), (None, 4)])
async def test_no_more_agents_work_at_a_time_than_a_batch_has(
    system: System, tmp_path: Path, batch: int | str | None, most: int
) -> None:
    await agents(system, *NAMES)
    log = tmp_path / "log"
    script = SCRIPT.format(log=log)

    sent = await system.client.dispatch("shell_script", {"script": script}, on={"agents": list(NAMES)}, batch=batch)
    found = await outcome(system, sent.task_id)

    assert dict(found.counts) == {"completed": 4}
    assert log.read_text().count("end") == 4
    assert 1 <= most_at_a_time(log) <= most


async def test_after_so_many_failures_none_of_the_rest_begins(system: System, tmp_path: Path) -> None:
    await agents(system, *NAMES)
    log = tmp_path / "log"
    script = f"echo run >> {log}; exit 3"

    sent = await system.client.dispatch(
        "shell_script", {"script": script}, on={"agents": list(NAMES)}, batch=1, stop_after_failures=2
    )
    found = await outcome(system, sent.task_id)

    assert dict(found.counts) == {"failed": 2, "cancelled": 2}
    assert found.status == Status.FAILED
    assert log.read_text().splitlines() == ["run", "run"]
    cancelled = [task for task in found.tasks if task.status is Status.CANCELLED]
    assert {task.error_message for task in cancelled} == {"stopped: 2 tasks of its fan-out failed"}


async def test_sent_again_it_is_the_same_fan_out_also_when_agents_have_come_since(system: System) -> None:
    await agents(system, "web-1")
    fan_out_id = uuid4()
    first = await system.client.dispatch("echo", {"message": "a"}, task_id=fan_out_id, on={"all": True})
    await agents(system, "web-2")

    again = await system.client.dispatch("echo", {"message": "a"}, task_id=fan_out_id, on={"all": True})
    with pytest.raises(ApiError) as other:
        await system.client.dispatch("echo", {"message": "b"}, task_id=fan_out_id, on={"all": True})

    assert [task.task_id for task in again.tasks or ()] == [task.task_id for task in first.tasks or ()]
    assert (other.value.status, other.value.error_code) == (409, 1003)
    assert len((await outcome(system, fan_out_id)).tasks) == 1


async def test_a_task_that_is_run_again_does_not_belong_to_the_fan_out(system: System) -> None:
    await agents(system, "web-1")
    sent = await system.client.dispatch("shell_script", {"argv": ["false"]}, on={"all": True}, stop_after_failures=1)
    found = await outcome(system, sent.task_id)

    rerun = await system.client.rerun(found.tasks[0].task_id)
    [task] = await system.finished(rerun.task_id)

    assert (task.status, task.agent_name, task.concurrency_key) == ("failed", "web-1", None)
    assert len((await system.client.fan_out(sent.task_id)).tasks) == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"on": {"agents": ["web-9"]}}, "on.agents"),
        ({"on": {"labels": {"zone": "moon"}}}, "on"),
        ({"on": {"all": True}, "concurrency_key": "a", "concurrency_limit": 1}, "concurrency_key"),
        ({"on": {"all": True}, "hints": {"agent_id": str(uuid4())}}, "hints.agent_id"),
        ({"on": {"all": True}, "batch": "0%"}, "body.batch"),
        ({"on": {"all": True}, "batch": 0}, "body.batch"),
        ({"on": {"all": True, "agents": ["web-1"]}}, "body.on"),
        ({"on": {}}, "body.on"),
        ({"batch": 2}, "body"),
        ({"stop_after_failures": 1}, "body"),
        ({"concurrency_key": "fan-out:mine", "concurrency_limit": 1}, "concurrency_key"),
    ],
)
async def test_a_fan_out_that_cannot_be_is_refused_by_the_name_of_its_field(
    system: System, fields: dict[str, object], field: str
) -> None:
    await agents(system, "web-1")

    with pytest.raises(ApiError) as refused:
        await system.client.hand_in({"task_id": str(uuid4()), "work_type": "echo", **fields})

    assert (refused.value.status, refused.value.error_code) == (422, 1002)
    assert str(refused.value).startswith(f"{field}: ") or f" {field}: " in str(refused.value), str(refused.value)
    assert not (await system.client.tasks(status="pending")).items


async def test_the_id_of_no_fan_out_is_not_found(system: System) -> None:
    with pytest.raises(ApiError) as unknown:
        await system.client.fan_out(uuid4())

    assert (unknown.value.status, unknown.value.error_code) == (404, 2001)
