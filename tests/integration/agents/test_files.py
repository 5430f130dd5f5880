"""Work gets the files that it names, and those that it leaves reach the orchestrator, whatever happens on the way."""

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agents.artifacts.spool import INDEX
from common.artifacts import MAX_PIECE_BYTES
from common.broker.base import Broker
from common.broker.rabbitmq import open_rabbitmq_broker
from common.errors import ErrorCode
from common.messages import ResultStatus
from tests.eventually import eventually
from tests.integration.agents.agent_process import AgentProcess, agent_process
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator

LARGE = bytes(range(256)) * (MAX_PIECE_BYTES * 5 // 2 // 256)


def is_empty(state_dir: Path) -> bool:
    """Whether no file waits in the state directory."""
    folder = state_dir / "artifacts"
    return [path.name for path in folder.iterdir()] == [INDEX] and (folder / INDEX).read_bytes() == b""


async def test_files_come_with_the_work_and_those_that_it_makes_of_them_are_kept(
    start_agent: StartAgent, orchestrator: ScriptedOrchestrator, tmp_path: Path
) -> None:
    orchestrator.files = {"in/large.bin": LARGE, "in/other": b"of another task\n"}
    await start_agent()

    task = await orchestrator.shell(
        "cat in/note in/other > out/text; cp in/large.bin out/",
        files={
            "in/note": {"text": "a note\n"},
            "in/large.bin": {"upload": sha256(LARGE).hexdigest()},
            "in/other": {"task": str(uuid4()), "artifact": "out"},
            "out/.keep": {"text": ""},
        },
        artifacts=["out/*"],
    )
    result = await orchestrator.ended(task)

    assert (result.status, result.error_message) == (ResultStatus.COMPLETED, None)
    assert orchestrator.kept(task) == {"out/large.bin": LARGE, "out/text": b"a note\nof another task\n"}
    assert {(want.task_id, want.attempt) for want in orchestrator.wants} == {(task, 1)}
    await eventually(lambda: is_empty(tmp_path / "agent"))


async def test_work_that_fails_leaves_its_files_all_the_same(
    start_agent: StartAgent, orchestrator: ScriptedOrchestrator
) -> None:
    await start_agent()

    task = await orchestrator.shell("echo broken > build.log; exit 3", artifacts=["build.log", "dist/*"])
    result = await orchestrator.ended(task)

    assert (result.status, result.exit_code) == (ResultStatus.FAILED, 3)
    assert result.error_message == (
        "The program ended with exit code 3. Not kept: 'dist/*': there is no such file."
    )  # fmt: skip
    assert orchestrator.kept(task) == {"build.log": b"broken\n"}


async def test_work_without_its_file_does_not_begin(
    start_agent: StartAgent, orchestrator: ScriptedOrchestrator
) -> None:
    await start_agent()

    task = await orchestrator.shell("echo began", files={"a": {"upload": "0" * 64}})
    result = await orchestrator.ended(task)

    assert (result.status, result.retryable, result.output) == (ResultStatus.FAILED, True, "")
    assert result.error_message == "The work cannot have its file 'a': There is no file a."


async def test_what_is_too_large_for_the_host_is_said_in_both_directions(
    start_agent: StartAgent, orchestrator: ScriptedOrchestrator
) -> None:
    orchestrator.files = {"a": b"x" * 101}
    await start_agent(max_artifact_bytes=100)

    got = await orchestrator.ended(await orchestrator.shell("true", files={"a": {"upload": "0" * 64}}))
    wrong = await orchestrator.ended(
        await orchestrator.shell("true", files={"a": {"upload": sha256(b"x" * 101).hexdigest()}})
    )
    kept = await orchestrator.ended(await orchestrator.shell("printf %0101d 1 > a", artifacts=["a"]))

    assert f"and not {'0' * 64}" in str(got.error_message)
    assert (wrong.error_code, wrong.retryable) == (ErrorCode.INVALID_REQUEST, False)
    assert "101 bytes" in str(wrong.error_message)
    assert kept.status is ResultStatus.COMPLETED
    assert "max_artifact_bytes" in str(kept.error_message)


async def test_work_begins_where_the_settings_of_its_host_allow_it(
    start_agent: StartAgent, orchestrator: ScriptedOrchestrator, tmp_path: Path
) -> None:
    allowed = tmp_path / "srv"
    (allowed / "app").mkdir(parents=True)
    await start_agent(cwd_allow=[str(allowed)])

    inside = await orchestrator.ended(await orchestrator.shell("pwd", cwd=f"{allowed}/app"))
    outside = await orchestrator.ended(await orchestrator.shell("pwd", cwd=str(tmp_path)))
    relative = await orchestrator.ended(await orchestrator.shell("pwd; pwd > a", cwd="src", artifacts=["src/a"]))

    assert inside.output == f"{allowed}/app\n"
    assert (outside.error_code, outside.output) == (ErrorCode.INVALID_REQUEST, "")
    assert relative.output.endswith("-1/src\n")
    assert orchestrator.kept(relative.task_id) == {"src/a": relative.output.encode()}


async def test_files_that_nobody_stored_are_sent_by_the_next_start(
    start_agent: StartAgent, orchestrator: ScriptedOrchestrator, tmp_path: Path
) -> None:
    orchestrator.stores = False
    first = await start_agent()
    task = await orchestrator.shell("echo kept > a", artifacts=["a"])
    await orchestrator.ended(task)
    first.stop.set()
    await first.ended
    assert not is_empty(tmp_path / "agent")
    orchestrator.stores = True
    seen = len(orchestrator.statuses)

    await start_agent()

    await eventually(lambda: is_empty(tmp_path / "agent"))
    assert [piece.name for status in orchestrator.statuses[seen:] for piece in status.pieces] == ["a"]


@pytest.fixture
async def bus(amqp_url: str) -> AsyncIterator[Broker]:
    async with open_rabbitmq_broker(amqp_url, name="orchestrator") as broker:
        yield broker


async def test_files_of_an_agent_that_was_killed_are_sent_when_it_comes_back(
    amqp_url: str, bus: Broker, tmp_path: Path
) -> None:
    state_dir = tmp_path / "agent"
    async with ScriptedOrchestrator(bus).listening() as orchestrator:

        async def killed(agent: AgentProcess, *, with_keepers: bool) -> tuple[UUID, UUID]:
            """Kill the agent with files that are not stored, and return the task that left them, and one that ran."""
            orchestrator.stores = False
            task = await orchestrator.shell("echo kept > a; seq 200000 > b", artifacts=["a", "b"])
            other = await orchestrator.shell("echo $$; exec sleep 600", artifacts=["never"])
            await orchestrator.ended(task, timeout=30)
            await eventually(lambda: orchestrator.output(other))
            await agent.kill(with_keepers=with_keepers)
            return task, other

        async def sent(task: UUID, other: UUID) -> None:
            """Wait for the files of an agent that was killed."""
            first, seen = orchestrator.kept(task), len(orchestrator.statuses)
            orchestrator.stores = True
            await eventually(lambda: is_empty(state_dir), timeout=30)

            again = {piece.name for status in orchestrator.statuses[seen:] for piece in status.pieces}
            assert again == {"a", "b"}
            assert orchestrator.kept(task) == first
            assert first["a"] == b"kept\n"
            assert first["b"].endswith(b"\n200000\n")
            assert orchestrator.kept(other) == {}

        async with agent_process(amqp_url, state_dir, slots=2) as agent:
            await eventually(lambda: orchestrator.heartbeats, timeout=30)
            left = await killed(agent, with_keepers=False)
        async with agent_process(amqp_url, state_dir, slots=2) as agent:
            await sent(*left)
            left = await killed(agent, with_keepers=True)
        async with agent_process(amqp_url, state_dir, slots=2):
            await sent(*left)
