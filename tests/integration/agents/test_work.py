"""Tickets become claims, grants become work, and work becomes output and one result."""

from pathlib import Path
from uuid import uuid4

from common.broker.base import Broker
from common.errors import ErrorCode
from common.messages import AgentStatus, ResultStatus, Stream, Ticket
from common.protocol import ORCHESTRATOR, TicketEnvelope, encode
from tests.eventually import eventually
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator


async def test_a_task_is_run_and_its_result_reported_once(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()
    task = await orchestrator.shell("echo out; echo err >&2; exit 3")

    result = await orchestrator.ended(task)

    assert (result.status, result.exit_code) == (ResultStatus.FAILED, 3)
    assert result.error_message == "The program ended with exit code 3."
    assert (result.fence, result.attempt) == (orchestrator.grants[task].fence, 1)
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


async def test_an_agent_takes_no_more_tickets_than_it_has_slots(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, broker: Broker, tmp_path: Path
) -> None:
    await start_agent(slots=2)
    gate = tmp_path / "gate"
    tasks = [await orchestrator.shell(f"while [ ! -e {gate} ]; do sleep 0.02; done") for _ in range(4)]

    await eventually(lambda: any(beat.status is AgentStatus.BUSY for beat in orchestrator.heartbeats))
    assert len(orchestrator.claims) == 2
    assert await broker.depth("work.infra") == 2
    gate.touch()

    await eventually(lambda: all(orchestrator.result(task) for task in tasks))


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


async def test_a_refused_ticket_is_dropped(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, broker: Broker
) -> None:
    await start_agent(slots=1)
    refused = await orchestrator.dispatch("echo", message="never")
    orchestrator.refuses.add(refused)
    following = await orchestrator.dispatch("echo", message="next")

    await orchestrator.ended(following)

    assert orchestrator.result(refused) is None
    assert [claim.task_id for claim in orchestrator.claims] == [refused, following]
    assert await broker.depth("work.infra") == 0
    assert await broker.depth("dead") == 0


async def test_what_the_work_returned_is_in_its_result(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()

    result = await orchestrator.ended(await orchestrator.dispatch("metrics", seconds=0.1))

    assert result.status is ResultStatus.COMPLETED
    assert isinstance(result.result, dict)
    assert result.result.keys() >= {"cpu", "load", "memory", "swap", "disks", "uptime_seconds", "gpus"}


async def test_a_work_type_without_an_executor_is_reported_and_not_claimed(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, broker: Broker
) -> None:
    await start_agent(slots=1)
    ticket = Ticket(task_id=uuid4(), work_type="unheard_of", fence=0)
    await orchestrator.publish_work(encode(TicketEnvelope(from_agent=ORCHESTRATOR, to_agent="infra", payload=ticket)))
    following = await orchestrator.dispatch("echo", message="next")

    await orchestrator.ended(following)

    [error] = orchestrator.errors
    assert (error.error_code, error.about) == (ErrorCode.UNSUPPORTED_WORK_TYPE, ticket.task_id)
    assert [claim.task_id for claim in orchestrator.claims] == [following]
    assert await broker.depth("work.infra") == 0


async def test_invalid_parameters_fail_the_task_and_say_why(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent()
    task = await orchestrator.dispatch("shell_script", script="true", argv=["true"])

    result = await orchestrator.ended(task)

    assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.INVALID_REQUEST)
    assert "exactly one of 'argv' and 'script'" in str(result.error_message)


async def test_a_ticket_is_held_no_longer_than_allowed_and_the_slot_takes_nothing_meanwhile(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, broker: Broker, tmp_path: Path
) -> None:
    agent = await start_agent(slots=1, ticket_hold_seconds=0.2)
    gate = tmp_path / "gate"
    long = await orchestrator.shell(f"echo running; while [ ! -e {gate} ]; do sleep 0.02; done")
    await eventually(lambda: orchestrator.output(long))
    waiting = await orchestrator.dispatch("echo", message="next")

    # Once it is settled nobody holds it, so a beat after the hold the queue has the second ticket only.
    beats = len(orchestrator.heartbeats)
    await eventually(lambda: len(orchestrator.heartbeats) > beats + 2)
    assert await broker.depth("work.infra") == 1
    assert [claim.task_id for claim in orchestrator.claims] == [long]
    gate.touch()

    await orchestrator.ended(waiting)
    assert orchestrator.result(long) is not None
    assert not agent.ended.done()


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
