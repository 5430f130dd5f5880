"""From a dispatch over REST through RabbitMQ to an agent and back, on real servers."""

import asyncio
from uuid import uuid4

import pytest

from common.broker import topology
from common.broker.base import Address, Outgoing
from common.messages import Grant, Stream
from common.protocol import StatusUpdateEnvelope, WorkRequestEnvelope, encode
from tests.contract.hands import BrokerHand
from tests.eventually import eventually
from tests.factories import make_grant, make_heartbeat
from tests.integration.system.deployment import System

pytestmark = pytest.mark.xdist_group("system/round_trip")


async def test_work_goes_round_with_its_ids_intact(system: System) -> None:
    await system.start_agent()
    task_id, request_id, trace_id = uuid4(), uuid4(), uuid4()

    answer = await system.client.dispatch(
        "shell_script",
        {"script": "echo $CHIFFON_TASK_ID $CHIFFON_TRACE_ID"},
        task_id=task_id,
        request_id=request_id,
        trace_id=trace_id,
    )
    [task] = await system.finished(task_id)

    assert (answer.task_id, answer.request_id, answer.trace_id) == (task_id, request_id, trace_id)
    assert (task.task_id, task.request_id, task.trace_id) == (task_id, request_id, trace_id)
    assert (task.status, task.exit_code, task.output) == ("completed", 0, f"{task_id} {trace_id}\n")
    events = (await system.client.events(task_id)).items
    assert {(event.task_id, event.request_id, event.trace_id) for event in events} == {(task_id, request_id, trace_id)}
    assert [event.kind for event in events][:2] == ["task.dispatched", "task.claimed"]


async def test_priorities_1_3_5_2_4_come_out_5_4_3_2_1_to_one_agent(system: System) -> None:
    ids = {priority: uuid4() for priority in (1, 3, 5, 2, 4)}
    for priority, task_id in ids.items():
        await system.client.dispatch("echo", {"message": "x"}, task_id=task_id, priority=priority)

    await system.start_agent(slots=1)
    tasks = await system.finished(*ids.values())

    ran = sorted(tasks, key=lambda task: task.started_at or task.created_at)
    assert [task.priority for task in ran] == [5, 4, 3, 2, 1]


async def test_two_agents_share_four_tasks(system: System) -> None:
    await system.start_agent(slots=2)
    await system.start_agent(slots=2)
    await eventually(lambda: _agents_ready(system, 2))
    ids = [uuid4() for _ in range(4)]

    for task_id in ids:
        await system.client.dispatch("shell_script", {"script": "sleep 0.5"}, task_id=task_id)
    tasks = await system.finished(*ids)

    assert {task.status for task in tasks} == {"completed"}
    ran_by = [task.agent_id for task in tasks]
    assert sorted(ran_by.count(agent) for agent in set(ran_by)) == [2, 2]


async def _agents_ready(system: System, count: int) -> bool:
    return len(await system.agents_ready()) == count


async def test_what_cannot_be_read_goes_to_the_dead_letters_and_the_agent_lives_on(system: System) -> None:
    await system.start_agent(slots=1)
    [agent] = await eventually(system.agents_online)
    work = topology.work_address("infra", agent.agent_id)
    misplaced = StatusUpdateEnvelope(from_agent="x", to_agent="y", payload=make_heartbeat())

    await system.broker.publish(
        Outgoing(work, b"{ this is not JSON", type="work_request"),
        Outgoing(work, encode(misplaced), type="status_update"),
    )
    task_id = uuid4()
    await system.client.dispatch("echo", {"message": "alive"}, task_id=task_id)
    [task] = await system.finished(task_id)

    assert task.output == "alive"
    letters = await eventually(lambda: system.dead_letters(2))
    assert {letter.queue for letter in letters} == {work.routing_key}
    reasons = sorted(letter.reason for letter in letters)
    assert any("JSON" in reason for reason in reasons)
    assert any("status_update" in reason for reason in reasons)


async def test_what_the_orchestrator_cannot_read_goes_to_the_dead_letters_and_it_lives_on(system: System) -> None:
    misplaced = WorkRequestEnvelope(from_agent="x", to_agent="y", payload=Grant(tasks=[make_grant()]))
    for queue in (topology.HEARTBEATS, topology.RESULTS, topology.PROGRESS):
        address = Address(topology.REPLIES, f"stranger.{queue.removeprefix('replies.')}")
        await system.broker.publish(
            Outgoing(address, b"\xff\x00", type="work_result"), Outgoing(address, encode(misplaced), misplaced.type)
        )

    await eventually(lambda: system.dead_letters(6))

    await system.start_agent()
    task_id = uuid4()
    await system.client.dispatch("echo", {"message": "alive"}, task_id=task_id)
    assert [task.status for task in await system.finished(task_id)] == ["completed"]


async def test_the_same_dispatch_twice_runs_once(system: System) -> None:
    await system.start_agent()
    task_id, request_id = uuid4(), uuid4()
    work = "shell_script", {"script": "echo ran >> $PWD/../../ran-once.txt"}

    answers = [await system.client.dispatch(work[0], work[1], task_id=task_id, request_id=request_id) for _ in range(3)]
    await system.finished(task_id)
    again = await system.client.dispatch(work[0], work[1], task_id=task_id, request_id=request_id)

    assert [again, *answers] == [answers[0]] * 4
    kinds = [event.kind for event in (await system.client.events(task_id)).items]
    assert kinds.count("task.dispatched") == kinds.count("task.claimed") == kinds.count("task.completed") == 1


async def test_of_200_concurrent_dispatches_none_is_lost_or_doubled(system: System) -> None:
    for _ in range(2):
        await system.start_agent(slots=8)
    ids, trace_id = [uuid4() for _ in range(200)], uuid4()

    await asyncio.gather(
        *(
            system.client.dispatch("echo", {"message": str(task_id)}, task_id=task_id, trace_id=trace_id)
            for task_id in ids
        )
    )
    tasks = await system.finished(*ids, timeout=60)

    assert {task.task_id: task.output for task in tasks} == {task_id: str(task_id) for task_id in ids}
    assert {(task.status, task.attempt) for task in tasks} == {("completed", 1)}
    page = await system.client.tasks(trace_id=trace_id, limit=200)
    assert len(page.items) == 200
    assert page.next_cursor is None


async def test_output_of_5_mib_arrives_whole_and_in_order(system: System) -> None:
    await system.start_agent()
    task_id = uuid4()
    lines = 5 * 1024 * 1024 // 64
    script = f"import sys\nfor n in range({lines}): sys.stdout.write(f'{{n:063d}}\\n')"

    await system.client.dispatch("shell_script", {"argv": ["python3", "-c", script]}, task_id=task_id)
    await system.finished(task_id, timeout=60)

    async def complete() -> str | None:
        text, offset = "", 0
        while (page := await system.client.output(task_id, stream=Stream.STDOUT, offset=offset)).text:
            text, offset = text + page.text, page.next_offset
        return text if page.complete else None

    text = await eventually(complete)
    assert text == "".join(f"{n:063d}\n" for n in range(lines))


async def test_a_running_task_is_cancelled_and_its_process_stops(system: System) -> None:
    await system.start_agent()
    task_id = uuid4()
    script = "trap 'echo stopping; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    await system.client.dispatch("shell_script", {"script": script}, task_id=task_id)

    async def obeys() -> bool:
        return "ready" in (await system.client.output(task_id, stream=Stream.STDOUT)).text

    await eventually(obeys, timeout=30)

    await system.client.cancel(task_id)

    assert (await system.client.status(task_id)).status == "cancelled"

    async def stopped() -> bool:
        return "task.stopped" in [event.kind for event in (await system.client.events(task_id)).items]

    await eventually(stopped)
    assert "stopping" in (await system.client.output(task_id, stream=Stream.STDOUT)).text


async def _is_status(system: System, task_id: object, status: str) -> bool:
    return (await system.client.status(task_id)).status == status  # type: ignore[arg-type]


async def test_an_agent_that_stops_hands_unfinished_work_to_another(system: System) -> None:
    first = await system.start_agent(stop_grace_seconds=0, kill_grace_seconds=1)
    task_id = uuid4()
    await system.client.dispatch(
        "shell_script",
        {"script": "sleep $((3 - 2 * (CHIFFON_ATTEMPT - 1))); echo $CHIFFON_ATTEMPT"},
        task_id=task_id,
        idempotent=True,
    )
    await eventually(lambda: _is_status(system, task_id, "running"))

    await system.start_agent()
    first.set()
    [task] = await system.finished(task_id)

    assert (task.status, task.attempt, task.output) == ("completed", 2, "2\n")


async def test_work_is_readable_to_anyone_who_speaks_the_protocol(system: System) -> None:
    task_id, trace_id = uuid4(), uuid4()
    async with BrokerHand.open(system.broker, "infra") as hand:
        await hand.beat(limit=1)
        await system.client.dispatch("echo", {"message": "x"}, task_id=task_id, trace_id=trace_id, priority=4)

        envelope = await hand.next_work()
        await hand.leave()

    [task] = envelope.payload.tasks
    assert (envelope.type, envelope.priority, task.trace_id) == ("work_request", 4, trace_id)
    assert (envelope.from_agent, envelope.to_agent) == ("orchestrator", str(hand.agent_id))
    assert (task.work.task_id, task.work.parameters) == (task_id, {"message": "x"})
