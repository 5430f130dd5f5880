"""The agent over HTTP keeps what it promises over a bus: a real agent and a real server that speaks the queue API."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from agents.main import run_agent
from agents.over_http.broker import OverHttp
from agents.settings import AgentSettings
from agents.way import ServerNotReady, TwoWays
from common.broker.base import Outgoing
from common.config import SharedSettings
from common.errors import ErrorCode
from common.protocol import WorkResults, decode
from tests.eventually import eventually
from tests.integration.agents.agent_process import agent_process
from tests.integration.agents.conftest import RunningAgent
from tests.integration.agents.queue_server import FakeJob, Fault, QueueServer
from tests.services.ports import free_ports
from tests.spooled import spooled
from tests.unit.agents.test_process import is_gone

StartAgent = Callable[..., Awaitable[RunningAgent]]


@pytest.fixture
async def server() -> AsyncIterator[QueueServer]:
    async with QueueServer().serving() as serving:
        yield serving


@asynccontextmanager
async def _running(settings: AgentSettings) -> AsyncIterator[RunningAgent]:
    stop = asyncio.Event()
    ended = asyncio.create_task(run_agent(settings, SharedSettings(), stop=stop))
    try:
        yield RunningAgent(stop, ended)
    finally:
        stop.set()
        await ended


@pytest.fixture
async def start(server: QueueServer, tmp_path: Path) -> AsyncIterator[StartAgent]:
    """Start an agent that has registered; it is stopped at the end of the test."""
    async with AsyncExitStack() as stack:

        async def start(**changes: object) -> RunningAgent:
            values = {
                "server_url": server.url,
                "state_dir": tmp_path / "agent",
                "slots": 2,
                "heartbeat_seconds": 0.5,
                "stop_grace_seconds": 0,
                "kill_grace_seconds": 0.3,
            }
            settings = AgentSettings.load(**{**values, **changes})
            agent = await stack.enter_async_context(_running(settings))
            await eventually(lambda: server.beats or agent.ended.done())
            return agent

        yield start


async def ended(job: FakeJob) -> dict[str, Any]:
    """Wait for what the agent says of the end of a job."""
    end = await eventually(lambda: job.end)
    assert end is not None
    return end


async def test_work_is_claimed_run_and_reported_with_all_that_it_wrote(server: QueueServer, start: StartAgent) -> None:
    job = server.shell("echo out; echo err >&2; exit 3")
    await start()

    end = await ended(job)

    assert (job.status, job.attempt) == ("failed", 1)
    assert (job.output("stdout"), job.output("stderr")) == ("out\n", "err\n")
    assert (end["exitCode"], end["retryable"], end["outputBytes"]) == (3, True, {"stdout": 4, "stderr": 4})
    assert server.beats[0]["workTypes"] == ["echo", "metrics", "shell_script"]


async def test_a_type_of_ones_own_is_announced_once(server: QueueServer, start: StartAgent) -> None:
    await start(executors=["tests.unit.agents.executor_classes:Nothing"])
    job = server.add("nothing")

    assert "errorMessage" not in await ended(job)
    await eventually(lambda: len(server.beats) >= 3)

    assert server.beats[0]["schemas"].keys() == {"nothing"}
    assert server.beats[0]["schemas"]["nothing"]["type"] == "object"
    assert "schemas" not in server.beats[-1]


async def test_what_the_work_returned_is_told_with_its_end(server: QueueServer, start: StartAgent) -> None:
    job = server.add("metrics", seconds=0.1)
    await start()

    assert (await ended(job))["result"]["cpu"]["cores"] == psutil.cpu_count()


async def test_output_travels_in_numbered_pieces_whose_offsets_leave_no_hole(
    server: QueueServer, start: StartAgent
) -> None:
    job = server.shell("for i in 1 2 3; do echo $i; sleep 0.2; done; head -c 600000 /dev/zero | tr '\\0' x")
    await start()

    end = await ended(job)

    pieces = [job.pieces[1, number] for number in range(len(job.pieces))]
    assert len(pieces) > 3
    assert [piece["offset"] for piece in pieces] == [
        sum(len(p["text"]) for p in pieces[:n]) for n in range(len(pieces))
    ]
    assert job.output() == "1\n2\n3\n" + "x" * 600_000
    assert end["outputBytes"]["stdout"] == 600_006


@pytest.mark.parametrize("fault", [None, Fault.LOST, Fault.BUSY])
async def test_progress_travels_ahead_of_the_end_also_when_an_answer_is_lost(
    server: QueueServer, start: StartAgent, fault: Fault | None
) -> None:
    if fault is not None:
        server.faults["/progress"] += [fault] * 2
    job = server.shell("echo 40 copying > $CHIFFON_PROGRESS; sleep 1; echo 100 done > $CHIFFON_PROGRESS; echo out")
    await start()

    await ended(job)

    assert list(dict.fromkeys(job.progress)) == ["40% copying", "100% done"]
    assert (job.status, job.output()) == ("succeeded", "out\n")
    assert not any(server.faults.values())


async def test_an_idle_agent_asks_seldom_and_gets_a_new_job_at_once(server: QueueServer, start: StartAgent) -> None:
    await start(slots=8)
    await eventually(lambda: server.said("/claim"))

    job = server.add(message="x")
    await eventually(lambda: job.end)

    assert server.said("/claim")[0]["claimId"] == job.claim_id
    assert len(server.said("/claim")) <= 3  # one brought the job, one waits for the next, one looked if there are more


async def test_no_more_jobs_are_claimed_than_there_are_slots(
    server: QueueServer, start: StartAgent, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = "touch {begun}; while [ ! -e {gate} ]; do sleep 0.05; done"
    jobs = [server.shell(script.format(begun=tmp_path / str(number), gate=gate)) for number in range(6)]
    await start(slots=2, heartbeat_seconds=0.1)

    await eventually(lambda: len(list(tmp_path.glob("[0-5]"))) >= 2)
    beats = len(server.beats)
    await eventually(lambda: len(server.beats) > beats + 3)

    assert len(list(tmp_path.glob("[0-5]"))) == 2
    assert sum(job.claim_id is not None for job in jobs) == 2
    gate.touch()
    await eventually(lambda: all(job.end for job in jobs))
    assert {job.attempt for job in jobs} == {1}


async def test_many_slots_do_not_wait_for_one_another_when_the_server_is_far_away(
    server: QueueServer, start: StartAgent
) -> None:
    server.far_away = 0.1
    jobs = [server.add(message="x") for _ in range(32)]
    await start(slots=16)

    await eventually(lambda: all(job.end for job in jobs))

    assert server.most_on_the_way > 3  # one after another there would be one
    assert {job.attempt for job in jobs} == {1}


@pytest.mark.parametrize("fault", Fault)
async def test_a_request_whose_answer_says_nothing_is_repeated_and_nothing_happens_twice(
    server: QueueServer, start: StartAgent, fault: Fault, tmp_path: Path
) -> None:
    for path in ("/claim", "/output", "/complete"):
        server.faults[path] += [fault]
    starts = tmp_path / "starts"
    job = server.shell(f"echo start >> {starts}; echo out")
    await start()

    await eventually(lambda: job.end)
    await eventually(lambda: not spooled(tmp_path / "agent"))

    assert (job.status, job.attempt, job.output()) == ("succeeded", 1, "out\n")
    assert starts.read_text() == "start\n"
    assert not any(server.faults.values())


async def test_a_job_that_a_claim_waited_for_runs_only_under_a_lease_that_was_renewed(
    server: QueueServer, start: StartAgent
) -> None:
    await start(lease_seconds=2)
    await eventually(lambda: server.said("/claim"))
    began = time.monotonic()
    await eventually(lambda: time.monotonic() > began + 0.3)

    job = server.add(message="x")
    await eventually(lambda: job.end)

    about = [path.rsplit("/", 1)[1] for path, _ in server.requests if str(job.id) in path]
    assert about[0] == "heartbeat"


async def test_a_result_stays_on_disk_until_the_server_has_stored_it(
    server: QueueServer, start: StartAgent, tmp_path: Path
) -> None:
    server.faults["/complete"] += [Fault.BUSY] * 1000
    job = server.add(message="x")
    await start()

    # It is written while it is sent for the first time.
    await eventually(lambda: server.said("/complete") and len(spooled(tmp_path / "agent")) == 1)
    refused = len(server.said("/complete"))
    await eventually(lambda: len(server.said("/complete")) > refused)
    assert len(spooled(tmp_path / "agent")) == 1
    server.faults["/complete"].clear()

    await eventually(lambda: job.end)
    await eventually(lambda: not spooled(tmp_path / "agent"))


async def test_results_that_wait_for_the_server_together_all_reach_it(
    server: QueueServer, start: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, together = OverHttp.publish, list[int]()

    async def when_all_have_ended(self: OverHttp, *messages: Outgoing) -> None:
        payloads = [decode(message.body).payload for message in messages]
        said = [len(payload.results) for payload in payloads if isinstance(payload, WorkResults)]
        if said and not together:
            await eventually(lambda: len(spooled(tmp_path / "agent")) == 6)
        together.extend(said)
        await publish(self, *messages)

    monkeypatch.setattr(OverHttp, "publish", when_all_have_ended)
    jobs = [server.shell(f"exit {code}") for code in range(6)]
    await start(slots=6)

    ends = [await ended(job) for job in jobs]

    assert max(together) > 1
    assert [end["exitCode"] for end in ends] == list(range(6))
    await eventually(lambda: spooled(tmp_path / "agent") == [])


async def test_a_result_that_will_never_count_is_not_kept(
    server: QueueServer, start: StartAgent, tmp_path: Path
) -> None:
    job = server.shell("echo x; while [ ! -e gate ]; do sleep 0.05; done", env={})
    await start()
    await eventually(job.output)

    job.owner = "somebody else"
    [workspace] = (tmp_path / "agent" / "work").iterdir()
    (workspace / "gate").touch()

    await eventually(lambda: server.said("/complete") and not spooled(tmp_path / "agent"))
    assert job.end is None


async def test_a_cancel_is_noticed_at_once_and_kills_the_whole_group(server: QueueServer, start: StartAgent) -> None:
    job = server.shell("sleep 600 & echo $! $$; wait")
    await start(heartbeat_seconds=60)
    await eventually(lambda: job.output().endswith("\n"))

    job.cancelled = True
    end = await ended(job)  # waits for a part of the time to the next heartbeat

    assert (end["cancelled"], job.status) == (True, "cancelled")
    for pid in map(int, job.output().split()):
        await eventually(partial(is_gone, pid))


async def test_work_whose_lease_the_server_does_not_renew_is_dead_before_it_ends(
    server: QueueServer, start: StartAgent
) -> None:
    server.renews = False
    job = server.shell("trap '' TERM; sleep 600 & echo $! $$; wait")
    await start(lease_seconds=2)
    await eventually(lambda: job.output().endswith("\n"))

    for pid in map(int, job.output().split()):
        await eventually(partial(is_gone, pid))

    assert time.monotonic() < job.lease_until


async def test_a_job_whose_lease_went_to_another_is_stopped(server: QueueServer, start: StartAgent) -> None:
    job = server.shell("echo $$; exec sleep 600")
    await start(lease_seconds=2)
    pid = await eventually(job.output)

    job.owner = "somebody else"

    await eventually(partial(is_gone, int(pid)))
    await eventually(lambda: server.said("/fail"))
    assert job.end is None


async def test_a_paused_agent_takes_nothing_until_it_may_again(server: QueueServer, start: StartAgent) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    server.orders = [{"action": "pause", "until": until, "note": "later"}]
    await start(heartbeat_seconds=0.1)
    await eventually(lambda: len(server.beats) > 3)
    job = server.add(message="x")

    beats = len(server.beats)
    await eventually(lambda: len(server.beats) > beats + 3)
    assert job.status == "queued"

    server.orders = []
    await eventually(lambda: job.end)


async def test_a_drained_agent_ends_what_runs_takes_nothing_and_leaves(server: QueueServer, start: StartAgent) -> None:
    job = server.shell("echo x; sleep 1")
    agent = await start(heartbeat_seconds=0.1)
    await eventually(job.output)

    server.orders = [{"action": "drain", "note": "upgrade"}]
    await eventually(lambda: server.beats[-1]["status"] == "draining")
    late = server.add(message="x")

    await eventually(agent.ended.done)
    assert (job.status, late.status) == ("succeeded", "queued")
    assert server.beats[-1]["status"] == "offline"


async def test_a_stopping_agent_hands_back_a_job_that_it_never_heard_of(server: QueueServer, start: StartAgent) -> None:
    server.faults["/claim"] += [Fault.LOST, Fault.LATER]
    job = server.add(message="x")
    agent = await start()
    await eventually(lambda: len(server.said("/claim")) == 2)
    assert job.status == "running"

    agent.stop.set()
    await agent.ended

    assert (job.status, job.end) == ("queued", None)
    assert [said["started"] for said in server.said("/fail")] == [False]


async def test_an_idle_agent_stops_at_once_and_leaves_no_claim_behind(server: QueueServer, start: StartAgent) -> None:
    agent = await start()
    await eventually(lambda: server.said("/claim"))

    agent.stop.set()
    async with asyncio.timeout(10):  # a claim waits for work longer than that
        await agent.ended

    job = server.add(message="x")
    assert job.status == "queued"
    assert server.said("/claim")[-1]["allowedTypes"] == []


async def test_work_goes_on_while_the_server_is_away_and_its_end_is_told_when_it_is_back(
    server: QueueServer, start: StartAgent, tmp_path: Path
) -> None:
    job = server.shell("echo before; while [ ! -e gate ]; do sleep 0.05; done; echo after")
    await start()
    await eventually(job.output)

    await server.stop()
    asked = len(server.requests)
    [workspace] = (tmp_path / "agent" / "work").iterdir()
    (workspace / "gate").touch()
    await eventually(lambda: spooled(tmp_path / "agent"))
    await server.start()

    await eventually(lambda: job.end)
    assert (job.status, job.attempt, job.output()) == ("succeeded", 1, "before\nafter\n")
    assert len(server.requests) < asked + 20


async def test_work_of_an_agent_that_was_killed_is_reported_as_its_attempt_when_it_is_back(
    server: QueueServer, tmp_path: Path
) -> None:
    job = server.shell("sleep 600 & echo $! $$; wait")
    async with agent_process(server.url, tmp_path / "agent") as agent:
        await eventually(lambda: job.output().endswith("\n"), timeout=30)
        await agent.kill()

    async with agent_process(server.url, tmp_path / "agent"):
        end = await eventually(lambda: job.end, timeout=30)

    assert end is not None
    assert (end["attempt"], end["errorCode"], end["retryable"]) == (1, ErrorCode.AGENT_UNAVAILABLE, True)
    for pid in map(int, job.output().split()):
        await eventually(partial(is_gone, pid))


async def test_a_server_elsewhere_is_reached_through_the_proxy_of_the_environment(
    server: QueueServer, start: StartAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)  # it answers itself, where a proxy would ask on
    job = server.add(message="x")
    await start(server_url="http://chiffon.example/")

    await ended(job)

    assert {path.split("/api/")[0] for path, _ in server.requests} == {"http://chiffon.example"}


async def test_no_proxy_is_asked_for_a_server_on_this_host(
    server: QueueServer, start: StartAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    [nobody] = free_ports(1)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{nobody}")
    job = server.add(message="x")
    await start()

    await ended(job)


async def test_an_agent_with_two_ways_refuses_to_start_and_says_so(server: QueueServer, tmp_path: Path) -> None:
    settings = AgentSettings.load(server_url=server.url, state_dir=tmp_path)

    with pytest.raises(TwoWays, match="CHIFFON_BROKER_URL"):
        await run_agent(settings, SharedSettings(broker_url="amqp://broker/"), stop=asyncio.Event())


async def test_an_agent_whose_server_is_not_there_refuses_to_start_and_says_so(tmp_path: Path) -> None:
    [port] = free_ports(1)
    settings = AgentSettings.load(server_url=f"http://127.0.0.1:{port}", state_dir=tmp_path)

    with pytest.raises(ServerNotReady, match="CHIFFON_AGENT_SERVER_URL"):
        await run_agent(settings, SharedSettings(), stop=asyncio.Event())


async def test_an_agent_whose_server_has_no_queue_api_refuses_to_start_and_says_so(
    server: QueueServer, tmp_path: Path
) -> None:
    server.faults["/jobs?limit=1"] += [Fault.STRANGER]
    settings = AgentSettings.load(server_url=server.url, state_dir=tmp_path)

    with pytest.raises(ServerNotReady, match="not the answer of a queue API"):
        await run_agent(settings, SharedSettings(), stop=asyncio.Event())
