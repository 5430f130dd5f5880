"""A write waits until a person approves it; what was approved runs once, and is exactly what was submitted."""

import asyncio
import json
import sqlite3
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chiffon.in_process import (
    ApprovalForbidden,
    ApprovalNotPossible,
    BadExecution,
    Execution,
    ExecutionHasEnded,
    OrchestratorService,
    Refusal,
    Status,
    UnknownExecution,
    WorkFailed,
)
from tests.eventually import eventually
from tests.fakes.clock import FakeClock

PATIENCE = 30.0


class Writer:
    """Counts what it is given to write."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    async def __call__(self, payload: Mapping[str, Any]) -> Any:
        self.written.append(payload)
        return len(self.written)


@pytest.fixture
def writer() -> Writer:
    return Writer()


async def test_a_write_waits_until_it_is_approved_and_runs_once_while_a_read_runs_at_once(
    writer: Writer,
) -> None:
    async def read(payload: Mapping[str, Any]) -> Any:
        return "read"

    async with OrchestratorService() as service:
        service.register("write", writer, effect="write")
        service.register("read", read, effect="read")
        await service.start_worker()
        submitted = await service.submit_execution("write", {"n": 1}, execution_id="w")
        await service.submit_execution("read", execution_id="r")
        assert (await service.outcome("r", timeout=PATIENCE)).result == "read"
        [waiting] = await service.awaiting_approval()
        assert submitted.status is Status.AWAITING_APPROVAL
        assert (waiting, writer.written) == (submitted, [])

        approved = await service.approve("w", by="ben")
        ended = await service.outcome("w", timeout=PATIENCE)
        again = await service.submit_execution("write", {"n": 1}, execution_id="w")
        kinds = [kind for _, kind, _ in await service.queue.store.events("w")]

    assert (approved.status, approved.approved_by) == (Status.PENDING, "ben")
    assert (ended.status, ended.result, ended.attempt) == (Status.COMPLETED, 1, 1)
    assert (again, writer.written) == (ended, [{"n": 1}])
    assert kinds == [
        "execution.submitted",
        "approval.requested",
        "approval.approved",
        "execution.started",
        "execution.completed",
    ]


async def test_a_program_can_write_and_runs_only_once_it_is_approved(tmp_path: Path) -> None:
    made = tmp_path / "made"
    async with OrchestratorService() as service:
        await service.start_worker()
        await service.submit_execution("shell_script", {"argv": ["touch", str(made)]}, execution_id="p")
        await service.submit_execution("echo", {"message": "read"}, execution_id="after")
        await service.outcome("after", timeout=PATIENCE)
        assert not made.exists()

        await service.approve("p", by="ben")
        ended = await service.outcome("p", timeout=PATIENCE)

    assert (ended.status, made.exists()) == (Status.COMPLETED, True)


async def test_an_approval_id_lets_nothing_run_by_itself(writer: Writer) -> None:
    async with OrchestratorService() as service:
        service.register("write", writer, effect="write")
        await service.start_worker()
        first = await service.submit_execution("write", {}, "made-up", "w")
        again = await service.submit_execution("write", {}, "another", "w")

    assert first.status is again.status is Status.AWAITING_APPROVAL
    assert (again.approval_id, writer.written) == ("made-up", [])


async def test_of_several_approvals_one_counts(writer: Writer) -> None:
    async with OrchestratorService() as service:
        service.register("write", writer, effect="write")
        await service.start_worker()
        await service.submit_execution("write", execution_id="w")
        answers = await asyncio.gather(*(service.approve("w", by="ben") for _ in range(20)))
        ended = await service.outcome("w", timeout=PATIENCE)
        assert await service.approve("w", by="ben") == ended
        with pytest.raises(ApprovalNotPossible, match="is completed, approved by 'ben'") as refused:
            await service.approve("w", by="ada")
        events = [kind for _, kind, _ in await service.queue.store.events("w")]

    assert {answer.approved_by for answer in answers} == {"ben"}
    assert refused.value.code == 3003
    assert (events.count("approval.approved"), len(writer.written)) == (1, 1)


async def test_only_another_person_than_the_one_who_requested_it_answers(writer: Writer) -> None:
    async with OrchestratorService() as service:
        service.register("write", writer, effect="write")
        await service.submit_execution("write", execution_id="w", requested_by="ada")
        with pytest.raises(ApprovalForbidden, match="'ada' requested"):
            await service.approve("w", by="ada")
        with pytest.raises(ApprovalForbidden, match="'ada' requested"):
            await service.reject("w", by="ada", reason="mine")
        with pytest.raises(BadExecution, match="by: must be a text"):
            await service.approve("w", by="")
        for alike in ("ada ", " ada", "ada\u200b", "a\u00adda", "ada\u00a0"):
            with pytest.raises(BadExecution, match="by: must not begin or end with a blank"):
                await service.approve("w", by=alike)
        with pytest.raises(UnknownExecution):
            await service.approve("no such", by="ben")

        assert (await service.approve("w", by="ben")).requested_by == "ada"


async def test_a_rejected_execution_is_cancelled_and_never_runs(writer: Writer) -> None:
    async with OrchestratorService() as service:
        service.register("write", writer, effect="write")
        await service.start_worker()
        await service.submit_execution("write", execution_id="w")
        waiting = asyncio.create_task(service.outcome("w", timeout=PATIENCE))
        with pytest.raises(BadExecution, match="reason"):
            await service.reject("w", by="ben", reason="")
        await service.reject("w", by="ben", reason="wrong host")
        ended = await waiting
        with pytest.raises(ApprovalNotPossible, match="it is cancelled"):
            await service.approve("w", by="ada")

    assert (ended.status, ended.error_code, ended.attempt) == (Status.CANCELLED, 3007, 0)
    assert (ended.error_message, writer.written) == ("rejected by ben: wrong host", [])


async def test_an_approval_that_races_a_cancel_leaves_one_of_both_ends() -> None:
    began: set[str] = set()

    async def write(payload: Mapping[str, Any]) -> Any:
        began.add(payload["id"])

    async with OrchestratorService(at_once=4) as service:
        service.register("write", write, effect="write")
        await service.start_worker()
        refusals, ends = 0, []
        for number in range(40):
            execution_id = f"w-{number}"
            await service.submit_execution("write", {"id": execution_id}, execution_id=execution_id)
            pair = [service.approve(execution_id, by="ben"), service.cancel(execution_id, by="ada")]
            answers = await asyncio.gather(*(pair if number % 2 else reversed(pair)), return_exceptions=True)
            refusals += any(isinstance(answer, ApprovalNotPossible) for answer in answers)
            had_begun = execution_id in began
            ends.append(await service.outcome(execution_id, timeout=PATIENCE))
            # Once the cancel is answered, nothing begins.
            assert (execution_id in began) == had_begun or ends[-1].status is Status.COMPLETED
        for end in ends:
            kinds = [kind for _, kind, _ in await service.queue.store.events(end.execution_id)]
            assert sum(kind in ("execution.completed", "execution.cancelled") for kind in kinds) == 1

    assert refusals >= 20  # in every second pair the cancel is first
    assert {end.status for end in ends} <= {Status.CANCELLED, Status.COMPLETED}


async def test_what_runs_is_stopped_by_a_cancel_and_its_answer_does_not_count(tmp_path: Path) -> None:
    entered, stopped = asyncio.Event(), asyncio.Event()
    alive, ended_well = tmp_path / "alive", tmp_path / "ended_well"
    script = f"trap 'touch {ended_well}; exit' TERM; touch {alive}; while :; do sleep 0.05; done"

    async def hang(payload: Mapping[str, Any]) -> Any:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with OrchestratorService(at_once=2) as service:
        service.register("hang", hang, effect="read")
        await service.start_worker()
        await service.submit_execution("hang", execution_id="function")
        await service.submit_execution("shell_script", {"script": script}, execution_id="program")
        await service.approve("program", by="ben")
        await entered.wait()
        await eventually(alive.exists)

        for execution_id in ("function", "program"):
            assert (await service.cancel(execution_id, by="ada")).status is Status.CANCELLED
            assert (await service.cancel(execution_id, by="ada")).error_message == "cancelled by ada"
        await stopped.wait()
        await eventually(ended_well.exists)
        await service.stop_worker()
        ends = [await service.outcome(one, timeout=PATIENCE) for one in ("function", "program")]
        await service.start_worker()
        done = await service.submit_execution("echo", {"message": "on"})
        await service.outcome(done.execution_id, timeout=PATIENCE)
        with pytest.raises(ExecutionHasEnded, match="it is completed"):
            await service.cancel(done.execution_id, by="ada")

    assert [end.status for end in ends] == [Status.CANCELLED, Status.CANCELLED]


async def test_a_claim_that_is_cancelled_before_it_begins_never_begins(
    monkeypatch: pytest.MonkeyPatch, writer: Writer
) -> None:
    async with OrchestratorService() as service:
        claim = service.queue.claim

        async def claim_and_cancel(*, until: asyncio.Event) -> Any:
            claimed = await claim(until=until)
            if claimed is not None and claimed.execution.execution_id == "first":
                await service.cancel("first", by="ada")
            return claimed

        monkeypatch.setattr(service.queue, "claim", claim_and_cancel)
        service.register("write", writer, effect="write")
        for execution_id in ("first", "second"):
            await service.submit_execution("write", {"id": execution_id}, execution_id=execution_id)
            await service.approve(execution_id, by="ben")
        await service.start_worker()
        await service.outcome("second", timeout=PATIENCE)

    assert writer.written == [{"id": "second"}]


async def test_what_is_not_approved_in_time_is_cancelled_and_an_approval_that_comes_later_is_refused(
    writer: Writer,
) -> None:
    clock = FakeClock()
    async with OrchestratorService(approval_wait=timedelta(hours=1), clock=clock) as service:
        service.register("write", writer, effect="write")
        await service.start_worker()
        await service.submit_execution("write", execution_id="late")
        clock.advance(seconds=3599)
        await service.submit_execution("write", execution_id="in time")
        waiting = asyncio.create_task(service.outcome("late", timeout=PATIENCE))
        clock.advance(seconds=1)
        with pytest.raises(ApprovalNotPossible):
            await service.approve("late", by="ben")
        expired = await waiting
        await service.approve("in time", by="ben")
        approved = await service.outcome("in time", timeout=PATIENCE)

    assert (expired.status, expired.error_code) == (Status.CANCELLED, 3007)
    assert expired.error_message == "not approved in time"
    assert (approved.status, len(writer.written)) == (Status.COMPLETED, 1)


async def test_what_a_gate_refused_runs_once_after_the_yes(writer: Writer) -> None:
    """By an approval that the gate reads, or by the id of one under which the same work is submitted again."""

    async def gate(execution: Execution) -> Refusal | None:
        approved = execution.approved_by == "ben" or execution.approval_id == "ticket-1"
        return None if approved else Refusal("no person has approved it")

    async with OrchestratorService(gate=gate) as service:
        service.register("write", writer, effect="write")
        await service.start_worker()
        for execution_id in ("by name", "by id", "never"):
            await service.submit_execution("write", {"id": execution_id}, execution_id=execution_id)
            refused = await service.outcome(execution_id, timeout=PATIENCE)
            assert (refused.status, refused.error_code, refused.refused) == (Status.FAILED, 3001, True)
            assert (refused.attempt, refused.started_at) == (0, None)
        assert writer.written == []

        await asyncio.gather(*(service.approve("by name", by="ben") for _ in range(5)))
        named = await service.outcome("by name", timeout=PATIENCE)
        for _ in range(2):
            await service.submit_execution("write", {"id": "by id"}, "ticket-1", "by id")
            with_id = await service.outcome("by id", timeout=PATIENCE)
        replayed = await service.submit_execution("write", {"id": "never"}, execution_id="never")
        await service.reject("never", by="ben", reason="no")
        with pytest.raises(ApprovalNotPossible, match="it is failed"):
            await service.approve("never", by="ben")

    assert [(end.status, end.attempt, end.refused) for end in (named, with_id)] == [(Status.COMPLETED, 1, False)] * 2
    assert (replayed.status, with_id.approval_id) == (Status.FAILED, "ticket-1")
    assert writer.written == [{"id": "by name"}, {"id": "by id"}]


@pytest.mark.parametrize("gated", [False, True])
async def test_one_yes_is_for_one_attempt_whatever_retries_says(gated: bool) -> None:
    began: list[Any] = []

    async def flaky(payload: Mapping[str, Any]) -> Any:
        began.append(payload)
        raise WorkFailed("no disk", retryable=True)

    async def gate(execution: Execution) -> Refusal | None:
        return Refusal("closed") if execution.approved_by is None else None

    async with OrchestratorService(retries=1, gate=gate if gated else None) as service:
        service.register("flaky", flaky, effect="write")
        await service.start_worker()
        asked = await service.submit_execution("flaky", execution_id="w")
        if gated:
            await service.outcome("w", timeout=PATIENCE)
        await service.approve("w", by="ben")
        ended = await service.outcome("w", timeout=PATIENCE)

    assert (ended.status, ended.attempt, len(began)) == (Status.FAILED, 1, 1)
    assert gated or asked.max_attempts == 1, "who approves is shown the number"


async def test_what_is_approved_and_does_not_begin_in_time_never_runs(writer: Writer) -> None:
    clock = FakeClock()
    async with OrchestratorService(approval_wait=timedelta(hours=1), clock=clock) as service:
        service.register("write", writer, effect="write")
        await service.submit_execution("write", execution_id="late")
        clock.advance(seconds=3599)
        approved = await service.approve("late", by="ben")
        clock.advance(seconds=3600)
        assert await service.queue.dequeue() is None
        await service.start_worker()
        ended = await service.outcome("late", timeout=PATIENCE)

    assert approved.status is Status.PENDING
    assert (ended.status, ended.error_code) == (Status.CANCELLED, 3007)
    assert (ended.error_message, writer.written) == ("approved, and not begun in time", [])


async def test_a_refusal_can_be_approved_only_for_a_time(writer: Writer) -> None:
    async def gate(execution: Execution) -> Refusal | None:
        return Refusal("closed") if execution.approved_by is None else None

    clock = FakeClock()
    async with OrchestratorService(gate=gate, approval_wait=timedelta(hours=1), clock=clock) as service:
        service.register("write", writer, effect="write")
        await service.start_worker()
        await service.submit_execution("write", execution_id="w")
        await service.outcome("w", timeout=PATIENCE)
        clock.advance(seconds=3600)
        with pytest.raises(ApprovalNotPossible, match="could be approved until 2026-11-22T11:00:00"):
            await service.approve("w", by="ben")

    assert writer.written == []


async def test_what_the_caller_or_a_gate_changes_afterwards_is_not_what_runs(writer: Writer) -> None:
    async def gate(execution: Execution) -> Refusal | None:
        if execution.execution_id == "changed":
            execution.payload["hosts"].append("production")
        return None

    asked = {"hosts": ["staging"]}
    async with OrchestratorService(gate=gate) as service:
        service.register("write", writer, effect="write")
        await service.submit_execution("write", asked, execution_id="as asked")
        await service.submit_execution("write", asked, execution_id="changed")
        asked["hosts"].append("production")
        await service.start_worker()
        as_asked = await service.outcome("as asked", timeout=PATIENCE)
        changed = await service.outcome("changed", timeout=PATIENCE)

    assert (as_asked.status, writer.written) == (Status.COMPLETED, [{"hosts": ["staging"]}])
    assert (changed.status, changed.error_code, changed.refused) == (Status.FAILED, 3004, False)


async def test_a_row_that_was_edited_between_asking_and_approving_does_not_run(tmp_path: Path, writer: Writer) -> None:
    store = tmp_path / "executions.db"
    async with OrchestratorService(store=store) as service:
        service.register("write", writer, effect="write")
        await service.start_worker()
        await service.submit_execution("write", {"host": "staging"}, execution_id="w")
        with sqlite3.connect(store) as db:
            db.execute("UPDATE execution SET payload = ?", (json.dumps({"host": "production"}),))
        db.close()
        await service.approve("w", by="ben")
        ended = await service.outcome("w", timeout=PATIENCE)

    assert (ended.status, ended.error_code, writer.written) == (Status.FAILED, 3004, [])
    assert "digest differs" in str(ended.error_message)
