"""What becomes of work and results when the agent itself is killed, or cut off: real processes, a real RabbitMQ."""

import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from common.broker.base import Broker
from common.broker.rabbitmq import open_rabbitmq_broker
from common.errors import ErrorCode
from common.messages import ResultStatus
from tests.contract.proxy import Proxy
from tests.eventually import eventually
from tests.integration.agents.agent_process import agent_process
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator
from tests.spooled import spooled
from tests.unit.agents.test_process import is_gone


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[Broker]:
    async with open_rabbitmq_broker(amqp_url, name="orchestrator") as broker:
        yield broker


@pytest.fixture
async def orchestrator(broker: Broker) -> AsyncIterator[ScriptedOrchestrator]:
    async with ScriptedOrchestrator(broker).listening() as scripted:
        yield scripted


@pytest.fixture
async def proxy(amqp_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(amqp_url) as proxy:
        yield proxy


def journal(state_dir: Path, *, of: UUID | None = None) -> list[dict[str, Any]]:
    """Return the lines of the journal, or those about a task."""
    path = state_dir / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if of is None or line.get("task_id") == str(of)]


async def test_an_agent_that_was_killed_reports_dead_work_and_sends_unstored_results_when_it_comes_back(
    amqp_url: str, orchestrator: ScriptedOrchestrator, tmp_path: Path
) -> None:
    state_dir = tmp_path / "agent"
    orchestrator.stores = False
    async with agent_process(amqp_url, state_dir, slots=1) as agent:
        await eventually(lambda: orchestrator.heartbeats, timeout=30)
        ended = await orchestrator.dispatch("echo", message="kept")
        # It is written while it is sent.
        await eventually(lambda: orchestrator.results[ended] and spooled(state_dir))
        # The grandchild is what the kernel does not kill with its keeper; the guardian would, were it not killed, too.
        task = await orchestrator.shell("sleep 600 & echo $$ $!; wait")
        await eventually(lambda: orchestrator.output(task).endswith("\n"))
        program, grandchild = map(int, orchestrator.output(task).split())
        await agent.kill(with_keepers=True)
        await eventually(lambda: is_gone(program))
        assert not is_gone(grandchild)
    assert len(spooled(state_dir)) == 1
    sent = len(orchestrator.results[ended])

    async with agent_process(amqp_url, state_dir, slots=1) as agent:
        orchestrator.stores = True
        result = await orchestrator.ended(task, timeout=30)

        assert is_gone(grandchild)
        assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.AGENT_UNAVAILABLE)
        assert (result.retryable, result.started) == (True, True)
        assert result.attempt == orchestrator.grants[task].attempt
        assert "restarted" in str(result.error_message)
        events = ["started", "process", "ended"]
        await eventually(lambda: [line["event"] for line in journal(state_dir, of=task)] == events)
        assert journal(state_dir, of=task)[-1]["killed"] == [grandchild]
        await eventually(lambda: len(orchestrator.results[ended]) > sent, timeout=30)
        await eventually(lambda: spooled(state_dir) == [])

        assert orchestrator.results[ended][-1] == orchestrator.results[ended][0]
        assert orchestrator.results[ended][-1].output == "kept"
        assert [line["event"] for line in journal(state_dir)].count("opened") == 2

        # One stays in the program's group, another leaves it, the third has neither a parent nor an environment.
        left = await orchestrator.shell(
            "sleep 600 & echo $!; setsid sh -c 'echo $$; exec sleep 600' & "
            "setsid -f env -i /bin/sh -c 'echo $$; exec /bin/sleep 600'; wait"
        )
        await eventually(lambda: orchestrator.output(left).count("\n") == 3)

        await agent.kill()

        for pid in map(int, orchestrator.output(left).split()):
            await eventually(partial(is_gone, pid))


async def test_work_of_an_agent_that_is_cut_off_is_dead_before_its_lease_ends(
    proxy: Proxy, orchestrator: ScriptedOrchestrator, tmp_path: Path
) -> None:
    orchestrator.lease_seconds = 5.0
    state_dir, stamps = tmp_path / "agent", tmp_path / "stamps"
    # The program and its child both ignore SIGTERM.
    script = f"trap '' TERM; echo $$; while :; do date +%s.%N >> {stamps}; sleep 0.1; done & echo $!; wait"
    async with agent_process(proxy.url, state_dir, slots=1, kill_grace_seconds=60):
        await eventually(lambda: orchestrator.heartbeats, timeout=30)
        task = await orchestrator.shell(script)
        await eventually(lambda: len(orchestrator.output(task).split()) == 2)
        await eventually(lambda: orchestrator.renewals, timeout=20)

        proxy.refuse()
        lease_end = orchestrator.lease_ends[task]
        for pid in map(int, orchestrator.output(task).split()):
            await eventually(partial(is_gone, pid), timeout=20)
        dead_at = time.time()
        await eventually(lambda: journal(state_dir)[-1]["event"] == "ended")

        ended_at = datetime.fromisoformat(journal(state_dir)[-1]["at"]).timestamp()
        assert dead_at < lease_end
        assert ended_at < lease_end
        assert float(stamps.read_text().split()[-1]) < lease_end
        assert journal(state_dir)[-1]["reason"] == "lease_lost"
        proxy.accept()
        result = await orchestrator.ended(task, timeout=40)
        assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.AGENT_UNAVAILABLE)


async def test_work_of_an_agent_that_is_stopped_is_dead_before_its_lease_ends_and_the_agent_lives_on(
    amqp_url: str, orchestrator: ScriptedOrchestrator, tmp_path: Path
) -> None:
    orchestrator.lease_seconds = 5.0
    state_dir, stamps = tmp_path / "agent", tmp_path / "stamps"
    script = f"trap '' TERM; echo $$; while :; do date +%s.%N >> {stamps}; sleep 0.1; done & echo $!; wait"
    async with agent_process(amqp_url, state_dir, slots=1) as agent:
        await eventually(lambda: orchestrator.heartbeats, timeout=30)
        task = await orchestrator.shell(script)
        await eventually(lambda: len(orchestrator.output(task).split()) == 2)
        await eventually(lambda: orchestrator.renewals, timeout=20)

        agent.pause()
        renewed_at = orchestrator.lease_ends[task] - orchestrator.lease_seconds
        for pid in map(int, orchestrator.output(task).split()):
            await eventually(partial(is_gone, pid), timeout=20)
        dead_at = time.time()
        await eventually(lambda: time.time() > orchestrator.lease_ends[task])
        agent.resume()

        result = await orchestrator.ended(task, timeout=40)
        assert dead_at < orchestrator.lease_ends[task]
        assert float(stamps.read_text().split()[-1]) < orchestrator.lease_ends[task]
        assert dead_at > renewed_at + orchestrator.lease_seconds / 2  # by its deadline, and not with the agent
        assert result.status is ResultStatus.FAILED
        beats = len(orchestrator.heartbeats)
        await eventually(lambda: len(orchestrator.heartbeats) > beats)
        assert "agent.guardian_lost" not in agent.log


POISONED = ["/usr/bin/env", "CHIFFON_TASK_ID=x", f"CHIFFON_ATTEMPT={'9' * 5000}", "/bin/sleep", "600"]


@pytest.fixture
def poisoned() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of others whose environment names an attempt that cannot be; of another user, too, where we may."""
    users = [None, "nobody"] if os.geteuid() == 0 else [None]
    processes = [subprocess.Popen(POISONED, user=user, start_new_session=True) for user in users]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


async def test_a_foreign_process_with_an_impossible_attempt_changes_nothing(
    amqp_url: str, orchestrator: ScriptedOrchestrator, tmp_path: Path, poisoned: list[subprocess.Popen[bytes]]
) -> None:
    state_dir = tmp_path / "agent"
    family = "sleep 600 & echo $$ $!; setsid -f env -i /bin/sh -c 'echo $$; exec /bin/sleep 600'; wait"
    async with agent_process(amqp_url, state_dir, slots=1) as agent:
        await eventually(lambda: orchestrator.heartbeats, timeout=30)
        cancelled = await orchestrator.shell(family)
        await eventually(lambda: len(orchestrator.output(cancelled).split()) == 3)
        await orchestrator.cancel(cancelled)

        assert (await orchestrator.ended(cancelled)).status is ResultStatus.CANCELLED
        assert all(is_gone(int(pid)) for pid in orchestrator.output(cancelled).split())
        assert (await orchestrator.ended(await orchestrator.shell("true"))).status is ResultStatus.COMPLETED
        left = await orchestrator.shell("sleep 600 & echo $$ $!; wait")
        await eventually(lambda: len(orchestrator.output(left).split()) == 2)
        await agent.kill(with_keepers=True)

    async with agent_process(amqp_url, state_dir, slots=1) as agent:
        result = await orchestrator.ended(left, timeout=30)
        again = await orchestrator.shell(family)
        await eventually(lambda: len(orchestrator.output(again).split()) == 3)
        await agent.kill()

        # Of the first the new agent kills what is left, of the second the guardian.
        assert result.status is ResultStatus.FAILED
        for pid in map(int, [*orchestrator.output(left).split(), *orchestrator.output(again).split()]):
            await eventually(partial(is_gone, pid))
    assert [process.poll() for process in poisoned] == [None] * len(poisoned)
