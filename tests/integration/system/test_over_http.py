"""Agents over HTTP in a whole Chiffon on real servers; what is killed or replaced is a process of its own."""

import asyncio
from collections import Counter
from pathlib import Path
from uuid import UUID

import httpx2
import pytest

from chiffon.client import Client
from common.messages import AgentStatus
from tests.contract.proxy import Proxy
from tests.eventually import eventually
from tests.integration.agents.agent_process import agent_process
from tests.integration.system.deployment import System, agent_here
from tests.integration.system.process_agents import all_dead, ended, identity, kinds, online, shell, written
from tests.integration.system.processes import server
from tests.services.ports import free_ports

pytestmark = pytest.mark.xdist_group("system/over_http")


async def _is_offline(client: Client, agent_id: UUID) -> bool:
    return {agent.agent_id: agent.status for agent in await client.agents()}[agent_id] is AgentStatus.OFFLINE


async def test_a_dispatched_task_is_run_over_http_and_its_output_and_result_are_complete(
    orchestrator: System, tmp_path: Path
) -> None:
    client = orchestrator.client
    async with agent_here(client.base_url, tmp_path / "agent"):
        task_id = await shell(client, "echo out; echo err >&2; head -c 300000 /dev/zero | tr '\\0' x")
        [task] = await ended(client, task_id)
        [agent_id] = await online(client, tmp_path / "agent")
        [agent] = [agent for agent in await client.agents() if agent.agent_id == agent_id]

    out, err = await client.output(task_id), await client.output(task_id, stream="stderr")
    assert (task.status, task.attempt, task.exit_code) == ("completed", 1, 0)
    assert (task.agent_id, agent.agent_type) == (agent_id, "infra")
    assert (out.text[:4], err.text, err.complete) == ("out\n", "err\n", True)
    assert (await client.output(task_id, offset=300_004)).complete
    happened = await kinds(client, task_id)
    assert [happened[kind] for kind in ("task.dispatched", "task.claimed", "task.completed")] == [1, 1, 1]
    await eventually(lambda: _is_offline(client, agent_id))


async def test_a_cancel_over_http_kills_the_whole_group_within_moments(orchestrator: System, tmp_path: Path) -> None:
    client = orchestrator.client
    async with agent_here(client.base_url, tmp_path / "agent", heartbeat_seconds=60):
        task_id = await shell(client, "sleep 600 & echo $! $$; wait")
        pids = [int(pid) for pid in (await written(client, task_id, lines=1)).split()]

        await client.cancel(task_id)
        await all_dead(pids)  # waits for a part of the time to the next heartbeat

        async def reported() -> bool:
            return (await kinds(client, task_id))["task.stopped"] == 1

        await eventually(reported)
    assert (await client.status(task_id)).status == "cancelled"


async def test_the_work_of_an_agent_that_was_killed_goes_to_the_next_when_its_lease_has_ended(
    orchestrator: System, tmp_path: Path
) -> None:
    client, starts, gate = orchestrator.client, tmp_path / "starts", tmp_path / "gate"
    script = f"echo $CHIFFON_ATTEMPT >> {starts}; echo $$; while [ ! -e {gate} ]; do sleep 0.05; done; echo end"
    async with agent_process(client.base_url, tmp_path / "first", lease_seconds=3, slots=1) as first:
        task_id = await shell(client, script, idempotent=True)
        pid = int(await written(client, task_id, lines=1))

        await first.kill()
        async with agent_process(client.base_url, tmp_path / "next", lease_seconds=3, slots=1):
            await eventually(lambda: starts.read_text().split() == ["1", "2"], timeout=30)
            gate.touch()
            [task] = await ended(client, task_id)

    await all_dead([pid])
    assert (task.status, task.attempt, task.agent_id) == ("completed", 2, identity(tmp_path / "next"))
    assert (await client.output(task_id)).text.split()[1:] == ["end"]
    happened = await kinds(client, task_id)
    assert [happened[kind] for kind in ("task.claimed", "task.completed")] == [2, 1]


async def test_an_agent_that_was_killed_says_what_it_left_when_it_is_back_and_the_task_runs_again(
    orchestrator: System, tmp_path: Path
) -> None:
    client, starts, gate = orchestrator.client, tmp_path / "starts", tmp_path / "gate"
    script = f"echo $CHIFFON_ATTEMPT >> {starts}; echo x; while [ ! -e {gate} ]; do sleep 0.05; done"
    async with agent_process(client.base_url, tmp_path / "agent", lease_seconds=600) as first:
        task_id = await shell(client, script, idempotent=True)
        await written(client, task_id, lines=1)
        await first.kill()
    gate.touch()

    async with agent_process(client.base_url, tmp_path / "agent", lease_seconds=600):
        [task] = await ended(client, task_id)  # long before the lease of the first attempt has ended

    assert (task.status, task.attempt) == ("completed", 2)
    assert starts.read_text().split() == ["1", "2"]


async def test_an_orchestrator_that_is_replaced_in_the_middle_of_a_run_loses_nothing(
    amqp_url: str, ledger_url: str, tmp_path: Path
) -> None:
    [port] = free_ports(1)
    url, starts, gate = f"http://127.0.0.1:{port}", tmp_path / "starts", tmp_path / "gate"
    script = f"echo start >> {starts}; for i in 1 2 3 4 5 6; do echo $i; sleep 0.4; done"
    waiting = f"echo start >> {starts}; while [ ! -e {gate} ]; do sleep 0.05; done; echo end"
    async with server(amqp_url, ledger_url, tmp_path, port=port) as old, agent_process(url, tmp_path / "agent"):
        ids = [await shell(old.client, script), await shell(old.client, waiting)]
        await written(old.client, ids[0], lines=2)
        old.process.kill()
        await old.process.wait()
        gate.touch()  # ends while nobody listens
        async with server(amqp_url, ledger_url, tmp_path, port=port) as new:
            tasks = await ended(new.client, *ids)
            texts = [(await new.client.output(task_id)).text.split() for task_id in ids]

    assert [(task.status, task.attempt) for task in tasks] == [("completed", 1)] * 2
    assert texts == [list("123456"), ["end"]]
    assert starts.read_text().split() == ["start"] * 2


async def test_a_paused_agent_over_http_takes_nothing_and_a_drained_one_leaves(
    orchestrator: System, tmp_path: Path
) -> None:
    client = orchestrator.client
    async with agent_process(client.base_url, tmp_path / "agent", heartbeat_seconds=0.2) as agent:
        [agent_id] = await online(client, tmp_path / "agent")
        await client.pause_agent(agent_id, note="disk")
        await eventually(lambda: "agent.paused" in agent.log)
        task_id = await shell(client, "echo x")
        assert (await client.status(task_id)).status == "pending"

        await client.resume_agent(agent_id)
        [task] = await ended(client, task_id)
        assert (task.status, task.attempt) == ("completed", 1)

        running = await shell(client, "echo x; sleep 1")
        await written(client, running, lines=1)
        await client.drain_agent(agent_id, note="upgrade")
        late = await shell(client, "echo late")
        [task] = await ended(client, running)
        await eventually(lambda: "agent.stopped" in agent.log)

    assert (task.status, task.attempt) == ("completed", 1)
    assert (await client.status(late)).status == "pending"
    await client.cancel(late)


async def test_a_job_of_the_queue_api_is_run_by_an_agent_on_a_bus(
    orchestrator: System, bus_url: str, tmp_path: Path
) -> None:
    client = orchestrator.client
    async with (
        httpx2.AsyncClient(base_url=client.base_url) as http,
        agent_here(bus_url, tmp_path / "agent"),
    ):
        created = await http.post("/api/queue/jobs", json={"type": "echo", "payload": {"message": "hello"}})
        job = created.json()
        [task] = await ended(client, UUID(job["id"]))
        shown = (await http.get(f"/api/queue/jobs/{job['id']}")).json()

    assert (created.status_code, task.status, task.output) == (201, "completed", "hello")
    assert (shown["status"], shown["resultSummary"], shown["attempt"]) == ("succeeded", "hello", 1)


async def test_work_that_is_for_certain_agents_goes_to_those_over_http_as_to_any_other(
    orchestrator: System, tmp_path: Path
) -> None:
    client = orchestrator.client
    async with (
        agent_here(client.base_url, tmp_path / "small", labels={"gpu_memory_gb": 8}),
        agent_here(client.base_url, tmp_path / "large", labels={"gpu_memory_gb": 48}),
    ):
        small, large = await online(client, tmp_path / "small", tmp_path / "large")
        needing = [await client.dispatch("echo", required={"gpu_memory_gb": 24}) for _ in range(3)]
        certain = [await client.dispatch("echo", agent_id=small) for _ in range(3)]
        tasks = await ended(client, *(one.task_id for one in (*needing, *certain)))

    assert [task.agent_id for task in tasks] == [large] * 3 + [small] * 3
    assert {(task.status, task.attempt) for task in tasks} == {("completed", 1)}


async def test_connections_that_break_all_the_time_lose_nothing_and_do_nothing_twice(
    orchestrator: System, tmp_path: Path
) -> None:
    client, ran = orchestrator.client, tmp_path / "ran"
    async with Proxy(client.base_url) as proxy:

        async def breaking() -> None:
            # By what went through and not by time, so that something does on a machine that is slow.
            while True:
                before = proxy.passed
                while proxy.passed < before + 12:
                    await asyncio.sleep(0.01)
                proxy.cut()

        async with agent_here(proxy.url, tmp_path / "agent", slots=4, result_resend_seconds=0.5):
            task_id = await shell(client, "echo first")
            await ended(client, task_id)
            trouble = asyncio.create_task(breaking())
            ids = [await shell(client, f"echo $CHIFFON_TASK_ID | tee -a {ran}; sleep 0.1") for _ in range(15)]
            tasks = await ended(client, *ids, timeout=80)
            trouble.cancel()
            await asyncio.gather(trouble, return_exceptions=True)
            texts = [(await client.output(task_id)).text for task_id in ids]

    # A claim that got no answer for long is given up, and its task leased again: that attempt never ran anything.
    assert Counter(task.status for task in tasks) == {"completed": len(ids)}
    assert Counter(ran.read_text().split()) == Counter(map(str, ids))
    assert texts == [f"{task_id}\n" for task_id in ids]


async def test_agents_on_a_bus_and_over_http_share_the_work_and_do_nothing_twice(
    orchestrator: System, bus_url: str, tmp_path: Path
) -> None:
    client, ran = orchestrator.client, tmp_path / "ran"
    async with (
        agent_here(bus_url, tmp_path / "bus", slots=2),
        agent_here(client.base_url, tmp_path / "http", slots=2),
    ):
        agents = await online(client, tmp_path / "bus", tmp_path / "http")
        ids = [await shell(client, f"echo $CHIFFON_TASK_ID >> {ran}; sleep 0.1") for _ in range(20)]
        tasks = await ended(client, *ids)

    assert Counter((task.status, task.attempt) for task in tasks) == {("completed", 1): len(ids)}
    assert Counter(ran.read_text().split()) == Counter(map(str, ids))
    assert {task.agent_id for task in tasks} == set(agents)
