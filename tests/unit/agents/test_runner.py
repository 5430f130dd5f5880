"""However an executor ends, the task gets a result and the agent lives on."""

import errno
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

import pytest

from agents.attempts.begun import Begun
from agents.attempts.owned import Attempt
from agents.attempts.stopping import StopReason
from agents.attempts.workspace import Workspaces
from agents.disk.journal import Journal
from agents.disk.journal_file import JournalFile, Line
from agents.disk.spool import Spool
from agents.executors.base import ExecutionContext, Executor, Outcome
from agents.executors.process import Command, run_process
from agents.gate.signature_check import SignatureCheck
from agents.gate.write_gate import WriteGate
from agents.link.reporter import Reporter
from agents.output.progress_file import ProgressFiles
from agents.processes.deadlines import Deadlines
from agents.processes.keepers import Keeper, Keepers
from agents.processes.table import look_at
from agents.tasks.availability import Availability
from agents.tasks.handover import Handover
from agents.tasks.runner import Runner
from agents.tasks.slots import Slots
from common.broker.memory import MemoryBroker
from common.broker.topology import PROGRESS, REPLY_QUEUES, RESULTS
from common.clock import SystemClock
from common.errors import ErrorCode
from common.loop import Health
from common.messages import GrantedTask, ResultStatus, Stream, WorkRequest, WorkResult, WorkStatus
from common.protocol import WorkResults, decode
from common.result import MAX_RESULT_BYTES
from common.work import Parameters

AGENT, SESSION = UUID(int=7), UUID(int=8)


class Scripted(Executor[Parameters]):
    """An executor that does what the test says."""

    kind: ClassVar[str] = "scripted"
    parameters = Parameters
    needs_workspace: ClassVar[bool] = True
    watches_stop: ClassVar[bool] = True

    def __init__(self, do: Callable[[ExecutionContext], Awaitable[Outcome]]) -> None:
        self._do = do

    async def carry_out(self, parameters: Parameters, context: ExecutionContext) -> Outcome:
        return await self._do(context)


def make_attempt(work_type: str = "scripted") -> Attempt:
    grant = GrantedTask(
        claim_id=uuid4(),
        work=WorkRequest(task_id=uuid4(), work_type=work_type),
        trace_id=uuid4(),
        request_id=uuid4(),
        attempt=1,
        lease_seconds=60.0,
    )
    return Attempt.granted(grant, asked_at=SystemClock().monotonic())


async def run(
    attempt: Attempt,
    state: Path,
    do: Callable[[ExecutionContext], Awaitable[Outcome]],
    *,
    queue: str = RESULTS,
    ahead: list[WorkStatus] | None = None,
    limit: int = 2,
) -> WorkResult:
    """Run an attempt and return its stored result; `ahead` gets what came before it in the queue.

    `limit` is how much work is asked for with it: of an attempt that had a slot, one task more than before.
    """
    broker = MemoryBroker()
    slots = Slots(1, SESSION, Availability(), SystemClock())
    slots.open()
    await broker.declare(*REPLY_QUEUES)
    async with (
        AsyncExitStack() as stack,
        Reporter(broker, AGENT, slots.credit) as reporter,
        Handover(
            make_spool(state), reporter, SystemClock(), resend_after=timedelta(minutes=1), health=Health()
        ) as handover,
    ):
        journal = stack.enter_context(Journal(JournalFile(journal_of(state)), session=SESSION, host_boot_id="boot"))
        runner = Runner(
            AGENT,
            gate=WriteGate(
                {"scripted": Scripted(do)},
                agent_type="infra",
                journal=journal,
                signatures=SignatureCheck(None, AGENT, SystemClock(), skew=timedelta(0), claim_of=lambda _: SESSION),
                begun=Begun(),
            ),
            workspaces=Workspaces(state),
            progress_files=stack.enter_context(ProgressFiles()),
            reporter=reporter,
            handover=handover,
            journal=journal,
            slots=slots,
            keepers=stack.enter_context(Keepers()),
            deadlines=Deadlines(),
            clock=SystemClock(),
            env_allow=[],
            kill_grace=timedelta(seconds=1),
        )
        await runner.run(attempt)
    async with broker.consume(queue, prefetch=10) as consumer:
        message = decode((await consumer.receive())[-1].body)
        while isinstance(message.payload, WorkStatus):
            if ahead is not None:
                ahead.append(message.payload)
            message = decode((await consumer.receive())[-1].body)
    assert isinstance(message.payload, WorkResults)
    assert message.payload.credit is not None
    assert message.payload.credit.limit == limit
    [envelope] = message.payload.results
    assert (envelope.trace_id, envelope.request_id) == (attempt.grant.trace_id, attempt.grant.request_id)
    return envelope.payload


def journal_of(state: Path) -> Path:
    return state.with_name("journal.jsonl")


def make_spool(state: Path) -> Spool:
    spool = Spool(state.with_name("spool"))
    spool.open()
    return spool


def journaled(state: Path) -> list[dict[str, Any]]:
    """Return the lines of the journal."""
    path = journal_of(state)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["event"] == "opened"
    return lines[1:]


async def succeed(context: ExecutionContext) -> Outcome:
    return Outcome(ResultStatus.COMPLETED)


async def test_an_executor_says_how_far_it_is_and_the_last_word_comes_before_the_result(tmp_path: Path) -> None:
    async def report(context: ExecutionContext) -> Outcome:
        for number in range(101):
            context.progress("counting", number)
        return Outcome(ResultStatus.COMPLETED)

    ahead: list[WorkStatus] = []
    attempt = make_attempt()
    result = await run(attempt, tmp_path / "work", report, queue=PROGRESS, ahead=ahead)

    assert [status.progress for status in ahead] == ["0% counting", "100% counting"]
    assert {(status.task_id, status.attempt) for status in ahead} == {(attempt.task_id, 1)}
    assert (result.status, result.output) == (ResultStatus.COMPLETED, "")


async def test_an_executor_that_raises_fails_the_task_without_telling_its_secrets(tmp_path: Path) -> None:
    async def explode(context: ExecutionContext) -> Outcome:
        raise KeyError("a secret")

    result = await run(make_attempt(), tmp_path / "work", explode)

    assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.INTERNAL)
    assert result.error_message == "The executor failed: KeyError."


async def test_a_host_that_has_no_room_is_a_reason_to_try_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    result = await run(make_attempt(), tmp_path / "file", succeed)

    assert (result.error_code, result.retryable) == (ErrorCode.RESOURCE_LIMIT, True)
    assert not result.started
    assert journaled(tmp_path / "file") == []


async def test_work_of_another_type_than_this_agent_knows_fails(tmp_path: Path) -> None:
    result = await run(make_attempt("unknown"), tmp_path / "work", succeed)

    assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.UNSUPPORTED_WORK_TYPE)


@pytest.mark.parametrize(
    ("reason", "status", "retryable"),
    [
        (StopReason.CANCELLED, ResultStatus.CANCELLED, False),
        (StopReason.LEASE_LOST, ResultStatus.FAILED, True),
        (StopReason.AGENT_STOPPING, ResultStatus.FAILED, True),
    ],
)
async def test_work_that_is_stopped_before_it_began_never_begins(
    tmp_path: Path, reason: StopReason, status: ResultStatus, retryable: bool
) -> None:
    attempt = make_attempt()
    attempt.stop.order(reason, grace=1)

    result = await run(attempt, tmp_path / "work", succeed)

    assert (result.status, result.retryable) == (status, retryable)


async def test_work_that_is_stopped_while_its_workspace_is_made_never_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt, began = make_attempt(), list[ExecutionContext]()
    make = Workspaces.open

    @asynccontextmanager
    async def stopped_meanwhile(*args: Any, **values: Any) -> AsyncIterator[Path]:
        async with make(*args, **values) as workspace:
            attempt.stop.order(StopReason.LEASE_LOST, grace=1)
            yield workspace

    async def begin(context: ExecutionContext) -> Outcome:
        began.append(context)
        return Outcome(ResultStatus.COMPLETED)

    monkeypatch.setattr(Workspaces, "open", stopped_meanwhile)
    result = await run(attempt, tmp_path / "work", begin)

    assert (result.status, result.started, began) == (ResultStatus.FAILED, False, [])
    assert journaled(tmp_path / "work") == []


async def test_an_attempt_that_got_no_slot_asks_for_no_work_in_its_place(tmp_path: Path) -> None:
    attempt = make_attempt()
    attempt.stop.order(StopReason.NO_SLOT, grace=0)

    result = await run(attempt, tmp_path / "work", succeed, limit=1)

    assert (result.status, result.started) == (ResultStatus.FAILED, False)


async def test_work_that_ended_by_itself_counts_although_it_was_to_be_stopped(tmp_path: Path) -> None:
    attempt = make_attempt()

    async def end_just_in_time(context: ExecutionContext) -> Outcome:
        attempt.stop.order(StopReason.AGENT_STOPPING, grace=1)
        return Outcome(ResultStatus.COMPLETED, exit_code=0)

    result = await run(attempt, tmp_path / "work", end_just_in_time)

    assert result.status is ResultStatus.COMPLETED


async def test_the_start_is_noted_before_the_executor_runs(tmp_path: Path) -> None:
    attempt = make_attempt()
    seen: list[dict[str, Any]] = []

    async def look(context: ExecutionContext) -> Outcome:
        seen.extend(journaled(tmp_path / "work"))
        return Outcome(ResultStatus.COMPLETED, exit_code=0)

    await run(attempt, tmp_path / "work", look)

    [started] = seen
    assert (started["event"], started["task_id"], started["attempt"]) == (
        "started",
        str(attempt.task_id),
        attempt.number,
    )
    assert [line["event"] for line in journaled(tmp_path / "work")] == ["started", "ended"]


async def test_work_whose_start_cannot_be_journaled_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: JournalFile, *lines: Line) -> None:
        if b'"started"' in lines[0].text:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JournalFile, "append", full)
    ran = False

    async def note(context: ExecutionContext) -> Outcome:
        nonlocal ran
        ran = True
        return Outcome(ResultStatus.COMPLETED)

    result = await run(make_attempt(), tmp_path / "work", note)

    assert not ran
    assert (result.error_code, result.retryable, result.started) == (ErrorCode.RESOURCE_LIMIT, True, False)


async def test_a_program_and_its_keeper_are_journaled_with_the_times_of_their_starts(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    def note(keeper: Keeper) -> None:
        for name, pid in (("program", keeper.pid), ("keeper", keeper.keeper_pid)):
            if (process := look_at(pid)) is not None:
                seen[name] = process.start_ticks

    async def start(context: ExecutionContext) -> Outcome:
        def started(keeper: Keeper) -> None:
            context.process_started(keeper)
            note(keeper)

        command = Command(["/bin/sleep", "0.5"], context.workspace, {}, b"", 60.0, 1.0)
        await run_process(context.keepers, command, write=context.write, stop=context.stop, started=started)
        return Outcome(ResultStatus.COMPLETED)

    await run(make_attempt(), tmp_path / "work", start)

    [process] = [line for line in journaled(tmp_path / "work") if line["event"] == "process"]
    assert {"program": process["start_ticks"], "keeper": process["keeper_ticks"]} == seen


async def test_the_result_is_on_disk_when_the_attempt_is_over(tmp_path: Path) -> None:
    result = await run(make_attempt(), tmp_path / "work", succeed)

    # Nobody has said that it is stored.
    assert [key.task_id for key in Spool(tmp_path / "spool").open()] == [result.task_id]


@pytest.mark.parametrize(
    ("code", "marked", "retryable"),
    [
        (ErrorCode.TIMEOUT, False, True),
        (ErrorCode.AGENT_UNAVAILABLE, False, True),
        (ErrorCode.RESOURCE_LIMIT, False, True),
        (ErrorCode.INVALID_REQUEST, True, False),
        (ErrorCode.UNSUPPORTED_WORK_TYPE, True, False),
        (ErrorCode.INTERNAL, True, False),
        (None, True, True),
        (None, False, False),
    ],
)
async def test_only_infrastructure_and_the_executor_itself_call_for_another_attempt(
    tmp_path: Path, code: ErrorCode | None, marked: bool, retryable: bool
) -> None:
    async def fail(context: ExecutionContext) -> Outcome:
        return Outcome.failed("no", code=code, retryable=marked)

    result = await run(make_attempt(), tmp_path / "work", fail)

    assert result.retryable is retryable


async def test_what_an_executor_returns_is_in_the_result_that_is_kept_and_sent(tmp_path: Path) -> None:
    async def tell(context: ExecutionContext) -> Outcome:
        return Outcome(ResultStatus.COMPLETED, result={"hosts": ["web1"], "changed": 2})

    result = await run(make_attempt(), tmp_path / "work", tell)

    assert result.result == {"hosts": ["web1"], "changed": 2}
    spool = Spool(tmp_path / "spool")
    [key] = spool.open()
    kept = spool.read(key)
    assert kept is not None
    assert kept.envelope().payload == result


async def test_a_result_that_is_too_large_fails_the_work_and_says_so(tmp_path: Path) -> None:
    async def tell(context: ExecutionContext) -> Outcome:
        return Outcome(ResultStatus.COMPLETED, result="x" * MAX_RESULT_BYTES)

    result = await run(make_attempt(), tmp_path / "work", tell)

    assert (result.status, result.error_code, result.retryable) == (ResultStatus.FAILED, None, False)
    assert result.error_message == "The result of the work must have at most 65536 bytes of JSON, not 65538."


async def test_neither_output_nor_error_nor_result_nor_spool_holds_a_secret(tmp_path: Path) -> None:
    async def tell(context: ExecutionContext) -> Outcome:
        await context.write(Stream.STDOUT, b"token chf_0123456789abcdefghij")
        failed = Outcome.failed("refused: amqp://user:hunter2@host/")
        return replace(failed, result={"url": "amqp://user:hunter2@host/", "chf_0123456789abcdefghij": 1})

    result = await run(make_attempt(), tmp_path / "work", tell, queue=PROGRESS)

    assert result.output == "token [redacted]"
    assert result.result == {"[redacted]": 1, "url": "amqp://user:[redacted]@host/"}
    assert result.error_message == "refused: amqp://user:[redacted]@host/"
    [kept] = (tmp_path / "spool").glob("*.jsonl")
    assert "hunter2" not in kept.read_text()
    assert "chf_" not in kept.read_text()
