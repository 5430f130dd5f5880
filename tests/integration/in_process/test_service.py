"""Work runs in this process, once."""

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chiffon.in_process import (
    BadExecution,
    Claim,
    Execution,
    ExecutionConflict,
    Job,
    OrchestratorService,
    QueueService,
    Refusal,
    UnknownExecution,
    WorkFailed,
    queries,
)
from common.lifecycle import Status
from tests.fakes.clock import FakeClock

PATIENCE = 30.0


async def echo(payload: Mapping[str, Any]) -> Any:
    return payload


async def test_what_is_submitted_is_run_by_the_worker_and_its_result_is_kept() -> None:
    async def double(payload: Mapping[str, Any]) -> Any:
        return {"doubled": payload["number"] * 2}

    async with OrchestratorService() as service:
        service.register("double", double, effect="read")
        submitted = await service.submit_execution("double", {"number": 21}, execution_id="e-1")
        assert submitted.status is Status.PENDING  # nobody runs it inline
        await service.start_worker()

        ended = await service.outcome("e-1", timeout=PATIENCE)
        script = "echo 50 half > $CHIFFON_PROGRESS && echo hello"
        program = await service.submit_execution("shell_script", {"script": script})
        await service.approve(program.execution_id, by="ben")
        output = await service.outcome(program.execution_id, timeout=PATIENCE)

    assert (ended.status, ended.result, ended.attempt) == (Status.COMPLETED, {"doubled": 42}, 1)
    assert output.result == {"exit_code": 0, "stdout": "hello\n", "stderr": ""}


async def test_an_execution_id_that_comes_again_is_the_same_execution_and_runs_once() -> None:
    runs = []

    async def count(payload: Mapping[str, Any]) -> Any:
        runs.append(payload)
        return len(runs)

    async with OrchestratorService() as service:
        service.register("count", count, effect="read")
        await service.start_worker()
        first = await service.submit_execution("count", {"n": 1}, "approval-1", "e-1")
        ended = await service.outcome(first.execution_id, timeout=PATIENCE)

        again = await service.submit_execution("count", {"n": 1}, "approval-1", "e-1")
        assert again == ended
        assert again.approval_id == "approval-1"
        with pytest.raises(ExecutionConflict):
            await service.submit_execution("count", {"n": 2}, "approval-1", "e-1")
    assert len(runs) == 1


async def test_a_workspace_of_any_depth_is_gone_and_changes_nothing_about_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    nest = "import os\nfor _ in range(2000):\n    os.mkdir('d'); os.chdir('d')"

    async with OrchestratorService() as service:
        await service.start_worker()
        program = await service.submit_execution("shell_script", {"argv": [sys.executable, "-c", nest]})
        await service.approve(program.execution_id, by="ann")
        ended = await service.outcome(program.execution_id, timeout=PATIENCE)

    assert (ended.status, ended.error_message) == (Status.COMPLETED, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("retries", "attempts", "status"), [(0, 1, Status.FAILED), (1, 2, Status.COMPLETED)])
async def test_a_retryable_failure_is_tried_again_as_often_as_allowed(
    retries: int, attempts: int, status: Status
) -> None:
    tries = []

    async def flaky(payload: Mapping[str, Any]) -> Any:
        tries.append(payload)
        if len(tries) == 1:
            raise WorkFailed("no disk", code=5005, retryable=True)
        return "well"

    async with OrchestratorService(retries=retries) as service:
        service.register("flaky", flaky, effect="read")
        await service.start_worker()
        submitted = await service.submit_execution("flaky")
        ended = await service.outcome(submitted.execution_id, timeout=PATIENCE)

    assert (ended.status, len(tries)) == (status, attempts)
    assert ended.error_code == (5005 if status is Status.FAILED else None)


async def test_a_failure_that_is_not_retryable_and_an_error_end_it_and_the_worker_goes_on() -> None:
    async def wrong(payload: Mapping[str, Any]) -> Any:
        raise RuntimeError("secret detail")

    async def unstorable(payload: Mapping[str, Any]) -> Any:
        return object()

    async with OrchestratorService(retries=1) as service:
        service.register("wrong", wrong, effect="read")
        service.register("unstorable", unstorable, effect="read")
        await service.start_worker()
        ends = []
        for command in ("wrong", "unstorable", "echo"):
            submitted = await service.submit_execution(command)
            ends.append(await service.outcome(submitted.execution_id, timeout=PATIENCE))

    assert [(one.status, one.attempt) for one in ends] == [
        (Status.FAILED, 1),
        (Status.FAILED, 1),
        (Status.COMPLETED, 1),
    ]
    assert ends[0].error_message == "The executor failed: RuntimeError."
    assert "cannot be stored" in str(ends[1].error_message)


async def test_what_the_gate_refuses_never_starts() -> None:
    started = []

    async def write(payload: Mapping[str, Any]) -> Any:
        started.append(payload)

    async def gate(execution: Execution) -> Refusal | None:
        return None if execution.approval_id == "yes" else Refusal("it writes, and nobody approved it")

    async with OrchestratorService(gate=gate) as service:
        service.register("write", write, effect="write")
        await service.start_worker()
        await service.submit_execution("write", {}, execution_id="refused")
        await service.submit_execution("write", {}, approval_id="yes", execution_id="allowed")
        refused = await service.outcome("refused", timeout=PATIENCE)
        allowed = await service.outcome("allowed", timeout=PATIENCE)

    assert (refused.status, refused.error_code) == (Status.FAILED, 3001)
    assert "nobody approved" in str(refused.error_message)
    assert (allowed.status, len(started)) == (Status.COMPLETED, 1)


async def test_a_worker_that_is_stopped_ends_what_runs_and_takes_nothing_new() -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def wait(payload: Mapping[str, Any]) -> Any:
        entered.set()
        await go.wait()
        return "done"

    async with OrchestratorService() as service:
        service.register("wait", wait, effect="read")
        await service.start_worker()
        await service.submit_execution("wait", {}, execution_id="runs")
        await service.submit_execution("wait", {}, execution_id="waits")
        await entered.wait()
        stopping = asyncio.create_task(service.stop_worker())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        go.set()
        await stopping
        assert (await service.queue.store.get("runs")).status is Status.COMPLETED
        assert (await service.queue.store.get("waits")).status is Status.PENDING

        await service.start_worker()
        assert (await service.outcome("waits", timeout=PATIENCE)).status is Status.COMPLETED


async def test_so_many_run_side_by_side_and_no_more() -> None:
    running, most, go = 0, 0, asyncio.Event()

    async def work(payload: Mapping[str, Any]) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            go.set()
        await go.wait()
        running -= 1

    async with OrchestratorService(at_once=3) as service:
        service.register("work", work, effect="read")
        ids = [(await service.submit_execution("work")).execution_id for _ in range(7)]
        await service.start_worker()
        for execution_id in ids:
            await service.outcome(execution_id, timeout=PATIENCE)

    assert most == 3


async def test_a_claim_is_acked_once_and_a_late_answer_does_not_count() -> None:
    async with QueueService(retries=1) as queue:
        await queue.enqueue(Job("anything", {"n": 1}, execution_id="e-1"))
        first = await queue.claim()
        assert first is not None
        assert await queue.nack(first, "lost", retryable=True) is Status.PENDING
        second = await queue.claim()
        assert second is not None

        assert await queue.ack(first, "late") is False
        assert await queue.ack(second, "in time") is True
        assert await queue.ack(second, "twice") is False

        assert (await queue.ended("e-1")).result == "in time"
        kinds = [kind for _, kind, _ in await queue.store.events("e-1")]
    assert kinds == [
        "execution.submitted",
        "execution.started",
        "execution.requeued",
        "execution.started",
        "execution.refused",
        "execution.completed",
        "execution.refused",
    ]


async def test_dequeue_claims_the_oldest_at_once_or_nothing() -> None:
    async with QueueService(clock=FakeClock()) as queue:  # the ids are in another order than their arrival
        assert await queue.dequeue() is None
        for name in ("b-first", "a-second"):
            await queue.enqueue(Job("anything", execution_id=name))

        claims = [await queue.dequeue() for _ in range(3)]

    assert [claim and claim.execution.execution_id for claim in claims] == ["b-first", "a-second", None]


async def claimed(waiting: "asyncio.Task[Claim | None]") -> str:
    async with asyncio.timeout(PATIENCE):
        claim = await waiting
    assert claim is not None
    return claim.execution.execution_id


async def waiting_claim(queue: QueueService) -> "asyncio.Task[Claim | None]":
    """Return a claim that has looked in vain, and looks again only when it is woken."""
    waiting = asyncio.create_task(queue.claim())
    await asyncio.sleep(0)  # its look is with the store, which answers in order
    await queue.store.last_ended(1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


async def test_a_waiting_claim_gets_what_is_enqueued_approved_or_tried_again() -> None:
    async with QueueService(retries=1) as queue:
        waiting = await waiting_claim(queue)
        await queue.enqueue(Job("anything", execution_id="enqueued"))
        assert await claimed(waiting) == "enqueued"

        await queue.enqueue(Job("anything", execution_id="approved", requested_by="ada"), needs_approval=True)
        waiting = await waiting_claim(queue)
        await queue.approve("approved", by="ben")
        assert await claimed(waiting) == "approved"

        await queue.enqueue(Job("anything", execution_id="again"))
        first = await queue.claim()
        assert first is not None
        waiting = await waiting_claim(queue)
        await queue.nack(first, "lost", retryable=True)
        assert await claimed(waiting) == "again"


async def test_a_waiting_claim_gets_what_was_enqueued_by_a_caller_who_is_cancelled() -> None:
    async with QueueService() as queue:
        waiting = await waiting_claim(queue)
        enqueueing = asyncio.create_task(queue.enqueue(Job("anything", execution_id="stored")))
        await asyncio.sleep(0)  # from here on the store has it
        enqueueing.cancel()

        assert await claimed(waiting) == "stored"
    assert enqueueing.cancelled()


async def test_a_claim_misses_nothing_that_is_enqueued_between_its_look_and_its_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with QueueService() as queue:
        dequeue = queue.dequeue

        async def enqueue_after_the_look() -> Claim | None:
            found = await dequeue()
            await queue.enqueue(Job("anything", execution_id="late"))
            return found

        monkeypatch.setattr(queue, "dequeue", enqueue_after_the_look)
        assert await claimed(asyncio.create_task(queue.claim())) == "late"


async def test_of_many_claims_that_wait_each_gets_one_of_what_is_enqueued_at_once() -> None:
    names = {f"e-{number}" for number in range(20)}
    async with QueueService() as queue:
        waiting = [await waiting_claim(queue) for _ in names]
        await asyncio.gather(*(queue.enqueue(Job("anything", execution_id=name)) for name in names))

        assert {await claimed(one) for one in waiting} == names


async def test_a_claim_that_waits_ends_with_nothing_when_its_event_is_set() -> None:
    stop = asyncio.Event()
    async with QueueService() as queue:
        waiting = asyncio.create_task(queue.claim(until=stop))
        await asyncio.sleep(0)
        stop.set()
        async with asyncio.timeout(PATIENCE):
            assert await waiting is None


async def test_a_claim_reads_what_is_open_and_nothing_that_ended() -> None:
    async with QueueService() as queue:
        plan = await queue.store.transaction(
            lambda db: db.execute(f"EXPLAIN QUERY PLAN {queries.OLDEST}", ("",)).fetchall()
        )

    assert [step[-1] for step in plan] == ["SEARCH execution USING INDEX execution_open (status=?)"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"command": "no_such"}, "command: 'no_such' is not known"),
        ({"command": "compose_repair"}, "command: 'compose_repair' is not known"),
        ({"command": "echo", "execution_id": ""}, "execution_id"),
        ({"command": "echo", "execution_id": "x" * 201}, "execution_id"),
        ({"command": "echo", "approval_id": "\x00"}, "approval_id"),
        ({"command": "echo", "requested_by": 7}, "requested_by"),
        ({"command": "echo", "payload": {"n": float("nan")}}, "payload"),
        ({"command": "echo", "payload": {"n": object()}}, "payload"),
    ],
)
async def test_bad_input_names_what_is_wrong(given: dict[str, Any], said: str) -> None:
    async with OrchestratorService() as service:
        with pytest.raises(BadExecution, match=said):
            await service.submit_execution(**given)
        with pytest.raises(UnknownExecution):
            await service.outcome("never submitted")
        with pytest.raises(BadExecution, match="effect: must be 'read' or 'write', not 'wriet'"):
            service.register("own", echo, effect="wriet")  # type: ignore[arg-type]
    with pytest.raises(BadExecution, match="retries"):
        OrchestratorService(retries=2)
    with pytest.raises(BadExecution, match="approval_wait"):
        OrchestratorService(approval_wait=timedelta(0))
