"""An agent asks for work, grants become work, and work becomes output and one result."""

from itertools import pairwise
from pathlib import Path

from common.errors import ErrorCode
from common.messages import Credit, ResultStatus, Stream
from tests.eventually import eventually
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator


def credits_of(orchestrator: ScriptedOrchestrator) -> list[Credit]:
    """Return how the agent asked for work, in the order in which it did."""
    return sorted(orchestrator.credits, key=lambda credit: credit.number)


async def test_a_task_is_run_and_its_result_reported_once(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()
    task = await orchestrator.shell("echo out; echo err >&2; exit 3")

    result = await orchestrator.ended(task)

    assert (result.status, result.exit_code) == (ResultStatus.FAILED, 3)
    assert result.error_message == "The program ended with exit code 3."
    assert result.attempt == orchestrator.grants[task].attempt
    assert sorted(result.output.split()) == ["err", "out"]
    assert result.output_bytes == {Stream.STDOUT: 4, Stream.STDERR: 4}
    assert orchestrator.output(task) == "out\n"


async def test_an_echo_travels_in_its_result(orchestrator: ScriptedOrchestrator, start_agent: StartAgent) -> None:
    await start_agent()
    task = await orchestrator.dispatch("echo", message="hello")

    result = await orchestrator.ended(task)

    assert (result.status, result.output) == (ResultStatus.COMPLETED, "hello")
    assert [chunk.text for chunk in result.chunks] == ["hello"]
    assert orchestrator.statuses == []


async def test_two_slots_run_two_tasks_side_by_side(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent(slots=2)
    # Each waits for the other: one after the other they would never end.
    meet = "touch {mine}; while [ ! -e {other} ]; do sleep 0.02; done"
    a, b = tmp_path / "a", tmp_path / "b"
    first = await orchestrator.shell(meet.format(mine=a, other=b))
    second = await orchestrator.shell(meet.format(mine=b, other=a))

    for task in (first, second):
        result = await orchestrator.ended(task)
        assert result.status is ResultStatus.COMPLETED


async def test_an_agent_is_granted_no_more_than_it_has_slots(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent(slots=2)
    gate = tmp_path / "gate"
    tasks = [await orchestrator.shell(f"while [ ! -e {gate} ]; do sleep 0.02; done") for _ in range(4)]

    await eventually(lambda: any(len(beat.current_tasks) == 2 for beat in orchestrator.heartbeats))
    assert orchestrator.waiting == tasks[2:]
    gate.touch()

    await eventually(lambda: all(orchestrator.result(task) for task in tasks))


async def test_more_than_was_asked_for_waits_for_a_slot(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent(slots=1)
    # One that began beside another would see that the other is there.
    script = f"mkdir {tmp_path}/alone || exit 1; sleep 0.1; rmdir {tmp_path}/alone"
    orchestrator.is_silent = True
    tasks = [await orchestrator.shell(script) for _ in range(3)]
    grants = [orchestrator.grant_of(task) for task in tasks]

    await orchestrator.send_grant(*grants)

    for task in tasks:
        assert (await orchestrator.ended(task)).status is ResultStatus.COMPLETED


async def test_each_task_that_came_makes_room_for_one_more_when_it_ends(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent(slots=2)
    tasks = [await orchestrator.dispatch("echo", message=str(number)) for number in range(20)]

    await eventually(lambda: all(orchestrator.result(task) for task in tasks))

    await eventually(lambda: orchestrator.credits[-1].heard == 20)
    credit = orchestrator.credits[-1]
    assert (credit.limit, credit.received) == (22, 20)
    assert all(earlier.limit <= later.limit for earlier, later in pairwise(credits_of(orchestrator)))


async def test_output_streams_while_the_work_runs(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent()
    gate = tmp_path / "gate"
    task = await orchestrator.shell(f"echo before; while [ ! -e {gate} ]; do sleep 0.02; done; echo after")

    await eventually(lambda: orchestrator.output(task) == "before\n")
    assert orchestrator.result(task) is None
    gate.touch()

    await orchestrator.ended(task)
    assert orchestrator.output(task) == "before\nafter\n"


async def test_five_mebibytes_of_output_arrive_whole_and_in_order(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()
    task = await orchestrator.shell("seq 1 776000")  # 5.3 MB

    result = await orchestrator.ended(task, timeout=30)

    expected = "".join(f"{number}\n" for number in range(1, 776_001))
    assert len(expected) > 5 * 1024 * 1024
    assert orchestrator.output(task) == expected
    chunks = orchestrator.chunks(task)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert result.output_bytes[Stream.STDOUT] == len(expected)
    assert expected.endswith(result.output)


async def test_what_the_work_returned_is_in_its_result(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()

    result = await orchestrator.ended(await orchestrator.dispatch("metrics", seconds=0.1))

    assert result.status is ResultStatus.COMPLETED
    assert isinstance(result.result, dict)
    assert result.result.keys() >= {"cpu", "load", "memory", "swap", "disks", "uptime_seconds", "gpus"}


async def test_work_for_which_there_is_no_executor_goes_back(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent(slots=1)
    unheard_of = await orchestrator.dispatch("unheard_of")
    following = await orchestrator.dispatch("echo", message="next")

    result = await orchestrator.ended(unheard_of)

    assert (result.error_code, result.started) == (ErrorCode.UNSUPPORTED_WORK_TYPE, False)
    assert (await orchestrator.ended(following)).status is ResultStatus.COMPLETED


async def test_invalid_parameters_fail_the_task_and_say_why(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()
    task = await orchestrator.dispatch("shell_script", script="true", argv=["true"])

    result = await orchestrator.ended(task)

    assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.INVALID_REQUEST)
    assert "exactly one of 'argv' and 'script'" in str(result.error_message)


async def test_the_workspace_is_private_and_gone_afterwards(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()
    task = await orchestrator.shell("pwd; stat -c %a .; touch rubbish")

    await orchestrator.ended(task)

    path, mode = orchestrator.output(task).split()
    assert mode == "700"
    assert str(task) in path
    assert not Path(path).exists()
