"""What an agent does when messages are broken, late, doubled or lost."""

import os
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from common.broker.base import Broker
from common.errors import ErrorCode
from common.messages import Grant, ResultStatus
from common.orders import Control, Heard, Resume
from common.protocol import ORCHESTRATOR, ControlEnvelope, encode
from tests.eventually import eventually
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator, work_message


async def reported(orchestrator: ScriptedOrchestrator, *, count: int) -> list[tuple[bytes, str, str]]:
    """Return body, reason and queue of what the agent said that it cannot read, once there are so many."""
    await eventually(lambda: len(orchestrator.unreadable) == count)
    return [(report.raw, report.reason, report.queue) for report in orchestrator.unreadable]


def process_is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


async def test_work_that_cannot_be_read_is_reported_and_the_agent_lives_on(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, broker: Broker
) -> None:
    await start_agent(slots=1)
    await orchestrator.publish_work(b'{"type": "work_req')
    following = await orchestrator.dispatch("echo", message="next")

    await orchestrator.ended(following)

    [(body, reason, queue)] = await reported(orchestrator, count=1)
    assert body == b'{"type": "work_req'
    assert queue == orchestrator.work_queue
    assert await broker.depth(orchestrator.work_queue) == 0
    assert "Invalid JSON" in reason


async def test_an_envelope_of_the_wrong_type_is_reported_and_the_agent_lives_on(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent(slots=1)
    first = await orchestrator.dispatch("echo", message="first")
    await orchestrator.ended(first)
    work = work_message(Grant(tasks=[orchestrator.grants[first]]))
    order = encode(ControlEnvelope(from_agent=ORCHESTRATOR, to_agent="agent", payload=Control(order=Resume())))
    await orchestrator.tell_raw(work)
    await orchestrator.tell_raw(b"\xff")
    await orchestrator.publish_work(order)
    await orchestrator.publish_work(work.replace(b'"work_request"', b'"no_such_type"'))
    following = await orchestrator.dispatch("echo", message="next")

    await orchestrator.ended(following)

    reports = await reported(orchestrator, count=4)
    reasons = {reason for _, reason, _ in reports}
    assert {queue for _, _, queue in reports} == {orchestrator.work_queue, f"control.{orchestrator.agent_id}"}
    assert any("control queue takes control, not work_request" in reason for reason in reasons)
    assert any("work queue takes work_request, not control" in reason for reason in reasons)
    assert any("no_such_type" in reason for reason in reasons)


async def test_a_grant_that_was_lost_is_missed_and_runs_when_it_is_sent_again(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent(slots=1)
    orchestrator.is_silent = True
    task = await orchestrator.dispatch("echo", message="late")
    lost = orchestrator.grant_of(task)
    orchestrator.account.granted += 1
    await eventually(lambda: orchestrator.credits[-1].heard == 1)
    assert orchestrator.credits[-1].received == 0

    await orchestrator.send_grant(lost)
    await orchestrator.ended(task)

    await eventually(lambda: orchestrator.credits[-1].received == 1)


async def test_the_number_of_grants_that_an_earlier_process_heard_of_is_not_believed(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent(slots=1)

    await orchestrator.order(Heard(beat_id=uuid4(), granted=1000))
    beats = len(orchestrator.heartbeats)
    await eventually(lambda: len(orchestrator.heartbeats) >= beats + 3)

    assert orchestrator.credits[-1].heard == 0


async def test_a_grant_that_comes_again_changes_nothing(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent(slots=2)
    gate = tmp_path / "gate"
    task = await orchestrator.shell(f"echo running; while [ ! -e {gate} ]; do sleep 0.02; done")
    await eventually(lambda: orchestrator.output(task))
    await orchestrator.send_grant(orchestrator.grants[task])
    gate.touch()
    await orchestrator.ended(task)
    await orchestrator.send_grant(orchestrator.grants[task])
    following = await orchestrator.dispatch("echo", message="next")

    await orchestrator.ended(following)

    result = orchestrator.result(task)
    assert result is not None
    assert result.status is ResultStatus.COMPLETED
    assert orchestrator.output(task) == "running\n"
    await eventually(lambda: (orchestrator.credits[-1].received, orchestrator.credits[-1].limit) == (2, 4))


async def test_a_grant_for_an_earlier_process_is_handed_back(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    first = await start_agent(slots=1)
    task = await orchestrator.dispatch("echo", message="x")
    await orchestrator.ended(task)
    earlier = orchestrator.credits[-1].session
    first.stop.set()
    await first.ended
    await start_agent(slots=1)
    await eventually(lambda: orchestrator.credits[-1].session != earlier)

    stray = orchestrator.grants[task].model_copy(update={"claim_id": earlier, "attempt": 77})
    await orchestrator.send_grant(stray)

    await eventually(lambda: len(orchestrator.results[task]) == 2)

    handed_back = orchestrator.results[task][1]
    assert (handed_back.status, handed_back.error_code) == (ResultStatus.FAILED, ErrorCode.AGENT_UNAVAILABLE)
    assert (handed_back.retryable, handed_back.started, handed_back.attempt) == (True, False, 77)
    assert orchestrator.credits[-1].received == 0


async def test_a_grant_that_answers_no_message_of_this_process_is_handed_back(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent(slots=1)
    orchestrator.is_silent = True
    task = await orchestrator.dispatch("echo", message="x")

    await orchestrator.send_grant(orchestrator.grant_of(task), credit=1_000_000)

    result = await orchestrator.ended(task)
    assert (result.error_code, result.retryable, result.started) == (ErrorCode.AGENT_UNAVAILABLE, True, False)


async def test_a_cancel_stops_the_whole_group(orchestrator: ScriptedOrchestrator, start_agent: StartAgent) -> None:
    await start_agent()
    task = await orchestrator.shell("sleep 60 & echo $! $$; wait")
    await eventually(lambda: orchestrator.output(task).endswith("\n"))

    await orchestrator.cancel(task)

    result = await orchestrator.ended(task)
    assert result.status is ResultStatus.CANCELLED
    for pid in orchestrator.output(task).split():
        await eventually(partial(process_is_gone, int(pid)))


@pytest.mark.parametrize("why", ["cancel", "time limit", "lease"])
async def test_what_left_the_group_of_work_that_is_stopped_dies_with_it(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, why: str
) -> None:
    await start_agent()
    limit = 2.0 if why == "time limit" else 60.0
    script = "setsid sh -c 'echo $$; exec sleep 600 >&- 2>&-' & wait; sleep 60"
    task = await orchestrator.shell(script, max_duration_seconds=limit)
    await eventually(lambda: orchestrator.output(task).endswith("\n"))
    runaway = int(orchestrator.output(task))
    if why == "cancel":
        await orchestrator.cancel(task)
    if why == "lease":
        await orchestrator.lose(task)

    result = await orchestrator.ended(task)

    assert result.status is not ResultStatus.COMPLETED
    assert process_is_gone(runaway)


async def test_a_cancel_of_another_lease_does_not_stop_the_work(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    await start_agent()
    gate = tmp_path / "gate"
    task = await orchestrator.shell(f"echo running; while [ ! -e {gate} ]; do sleep 0.02; done")
    await eventually(lambda: orchestrator.output(task))
    granted = orchestrator.grants[task]
    orchestrator.grants[task] = granted.model_copy(update={"attempt": granted.attempt + 1})
    await orchestrator.cancel(task)
    other = await orchestrator.dispatch("echo", message="the cancel was read before this")
    await orchestrator.ended(other)
    gate.touch()

    result = await orchestrator.ended(task)

    assert result.status is ResultStatus.COMPLETED


async def test_leases_are_renewed_together_while_work_runs(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    orchestrator.lease_seconds = 0.9
    await start_agent(slots=2)
    gate = tmp_path / "gate"
    tasks = [await orchestrator.shell(f"while [ ! -e {gate} ]; do sleep 0.02; done") for _ in range(2)]

    await eventually(lambda: sum(len(renewal.leases) == 2 for renewal in orchestrator.renewals) >= 5)
    gate.touch()

    for task in tasks:
        result = await orchestrator.ended(task)
        assert result.status is ResultStatus.COMPLETED


async def test_work_whose_lease_cannot_be_renewed_is_dead_before_the_lease_ends(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    orchestrator.lease_seconds = 3.0
    orchestrator.renews = False
    await start_agent(kill_grace_seconds=10)
    stamps = tmp_path / "stamps"
    task = await orchestrator.shell(f"trap '' TERM; date +%s.%N; while :; do date +%s.%N >> {stamps}; sleep 0.05; done")

    result = await orchestrator.ended(task)

    assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.AGENT_UNAVAILABLE)
    assert "lost its lease" in str(result.error_message)
    started = float(orchestrator.output(task))
    last = float(stamps.read_text().splitlines()[-1])
    assert last - started < orchestrator.lease_seconds


async def test_work_whose_lease_is_lost_is_stopped(orchestrator: ScriptedOrchestrator, start_agent: StartAgent) -> None:
    await start_agent()
    task = await orchestrator.shell("echo running; sleep 60")
    await eventually(lambda: orchestrator.output(task))

    # Long before the lease ends, so that nothing else can stop the work.
    await orchestrator.lose(task)

    result = await orchestrator.ended(task)
    assert (result.status, result.retryable) == (ResultStatus.FAILED, True)
    assert "lost its lease" in str(result.error_message)


async def test_a_lease_that_the_answer_to_a_renewal_calls_lost_stops_the_work(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    orchestrator.lease_seconds = 1.5
    await start_agent()
    task = await orchestrator.shell("echo running; sleep 60")
    orchestrator.loses.add(task)

    result = await orchestrator.ended(task)

    assert (result.status, result.retryable) == (ResultStatus.FAILED, True)
    assert orchestrator.renewals


async def test_a_late_answer_for_an_unknown_renewal_or_task_is_ignored(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent
) -> None:
    await start_agent(slots=1)
    task = await orchestrator.dispatch("echo", message="x")
    await orchestrator.ended(task)
    await orchestrator.cancel(task)
    orchestrator.grants[UUID(int=1)] = orchestrator.grants[task]
    await orchestrator.cancel(UUID(int=1))
    following = await orchestrator.dispatch("echo", message="next")

    assert await orchestrator.ended(following)
