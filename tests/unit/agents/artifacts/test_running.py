"""An attempt's files go ahead of its result, and work that owns its end is killed by no lease."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from agents.artifacts.keep import Files
from agents.artifacts.sender import ArtifactSender
from agents.artifacts.wants import Wants
from agents.attempts.begun import Begun
from agents.attempts.owned import Attempt
from agents.attempts.stopping import StopReason, StopSignal
from agents.attempts.workspace import Workspaces
from agents.disk.journal import Journal
from agents.disk.journal_file import JournalFile
from agents.executors.base import ExecutionContext, Executor, Outcome
from agents.executors.process import Command, Finished, run_process
from agents.gate.signature_check import SignatureCheck
from agents.gate.write_gate import WriteGate
from agents.link.reporter import Reporter
from agents.output.progress_file import ProgressFiles
from agents.processes.deadlines import Deadlines
from agents.processes.keepers import Keeper, Keepers
from agents.tasks.availability import Availability
from agents.tasks.handover import Handover
from agents.tasks.runner import Runner
from agents.tasks.slots import Slots
from common.artifacts import MAX_PIECE_BYTES
from common.broker.base import Address, BrokerUnavailable, Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import PROGRESS, REPLY_QUEUES, reply_address
from common.clock import SystemClock
from common.loop import Health
from common.messages import GrantedTask, ResultStatus, StepStatus, Stream, WorkRequest, WorkResult, WorkStatus
from common.protocol import WorkResults, decode
from common.redaction.values import Values
from common.work import WithFiles
from tests.eventually import eventually
from tests.unit.agents.artifacts.making import AGENT, LIMIT, make_spool, owed
from tests.unit.agents.test_runner import SESSION, journal_of
from tests.unit.agents.test_runner import make_spool as make_result_spool

SECRET = "s3cret-of-the-host-0123456789"
LARGE = b"x" * (MAX_PIECE_BYTES * 5 // 2)

Do = Callable[[ExecutionContext], Awaitable[Outcome]]


class Scripted(Executor[WithFiles]):
    """Does what the test says."""

    kind: ClassVar[str] = "scripted"
    parameters = WithFiles
    needs_workspace: ClassVar[bool] = True
    watches_stop: ClassVar[bool] = True

    def __init__(self, do: Do) -> None:
        self._do = do

    async def carry_out(self, parameters: WithFiles, context: ExecutionContext) -> Outcome:
        return await self._do(context)


class Owning(Scripted):
    owns_its_end: ClassVar[bool] = True


class Order(MemoryBroker):
    """Notes what arrives, and in which queue. While `is_away` it takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: list[tuple[Address, WorkStatus | WorkResult]] = []
        self.is_away = False

    async def publish(self, *messages: Outgoing) -> None:
        if self.is_away:
            raise BrokerUnavailable("away")
        for message in messages:
            match decode(message.body).payload:
                case WorkStatus() as status:
                    self.arrived.append((message.address, status))
                case WorkResults(results=results):
                    self.arrived += [(message.address, result.payload) for result in results]
                case other:
                    raise AssertionError(other)

    @property
    def words(self) -> list[str]:
        """What arrived, in short."""
        return [_word(payload) for _, payload in self.arrived]

    @property
    def result(self) -> WorkResult:
        [result] = [payload for _, payload in self.arrived if isinstance(payload, WorkResult)]
        return result


def _word(payload: WorkStatus | WorkResult) -> str:
    if isinstance(payload, WorkResult):
        return payload.status
    if payload.pieces:
        return " ".join(f"{piece.name}@{piece.offset}" for piece in payload.pieces)
    return " ".join(f"{report.name} {report.status}" for report in payload.steps) or "output"


class Running:
    def __init__(self, broker: Order, runner: Runner, deadlines: Deadlines) -> None:
        self.broker = broker
        self.runner = runner
        self.deadlines = deadlines


@asynccontextmanager
async def running(folder: Path, executor: Executor[Any]) -> AsyncIterator[Running]:
    broker, work = Order(), folder / "work"
    slots = Slots(1, SESSION, Availability(), SystemClock())
    slots.open()
    await broker.declare(*REPLY_QUEUES)
    spool = make_spool(folder)
    every = timedelta(minutes=1)
    async with (
        AsyncExitStack() as stack,
        Reporter(broker, AGENT, slots.credit) as reporter,
        Handover(make_result_spool(work), reporter, SystemClock(), resend_after=every, health=Health()) as handover,
        ArtifactSender(spool, reporter, AGENT, SystemClock(), resend_after=every, health=Health()) as sender,
    ):
        journal = stack.enter_context(Journal(JournalFile(journal_of(work)), session=SESSION, host_boot_id="boot"))
        deadlines = Deadlines()
        runner = Runner(
            AGENT,
            gate=WriteGate(
                {"scripted": executor},
                agent_type="infra",
                journal=journal,
                signatures=SignatureCheck(None, AGENT, SystemClock(), skew=timedelta(0), claim_of=lambda _: SESSION),
                begun=Begun(),
            ),
            workspaces=Workspaces(work),
            progress_files=stack.enter_context(ProgressFiles()),
            reporter=reporter,
            handover=handover,
            journal=journal,
            slots=slots,
            keepers=stack.enter_context(Keepers()),
            deadlines=deadlines,
            clock=SystemClock(),
            env_allow=[],
            kill_grace=timedelta(seconds=1),
            known_secrets=Values([SECRET]),
            files=Files(spool, sender, Wants(reporter, AGENT, limit=LIMIT)),
        )
        yield Running(broker, runner, deadlines)


def make_attempt(lease: float = 60.0, **parameters: Any) -> Attempt:
    grant = GrantedTask(
        claim_id=uuid4(),
        work=WorkRequest(task_id=uuid4(), work_type="scripted", parameters=parameters),
        trace_id=uuid4(),
        request_id=uuid4(),
        attempt=1,
        lease_seconds=lease,
    )
    return Attempt.granted(grant, asked_at=SystemClock().monotonic())


async def test_what_is_kept_arrives_before_the_result_and_in_the_same_queue(tmp_path: Path) -> None:
    async def do(context: ExecutionContext) -> Outcome:
        (context.workspace / "out.bin").write_bytes(LARGE)
        return Outcome(ResultStatus.COMPLETED)

    attempt = make_attempt(artifacts=["*.bin"])
    async with running(tmp_path, Scripted(do)) as it:
        await it.runner.run(attempt)

        steps = [f"out.bin@{at * MAX_PIECE_BYTES}" for at in range(3)]
        assert it.broker.words == [*steps, "completed"]
        assert {address for address, _ in it.broker.arrived} == {reply_address(AGENT, PROGRESS)}
        assert it.broker.result.error_message is None
    assert [(one.task_id, one.request_id) for one in owed(tmp_path)] == [(attempt.task_id, attempt.grant.request_id)]


async def test_what_an_executor_keeps_goes_while_it_works(tmp_path: Path) -> None:
    async def do(context: ExecutionContext) -> Outcome:
        (context.workspace / "log").write_bytes(b"analysed")
        kept = await context.keep("analyze.log", context.workspace / "log", "metrics")
        await eventually(lambda: it.broker.words == ["analyze.log@0"])
        context.step(0, "analyze", StepStatus.SUCCEEDED, f"with {SECRET}")
        return Outcome(ResultStatus.COMPLETED, result={"sha256": kept.sha256})

    async with running(tmp_path, Scripted(do)) as it:
        await it.runner.run(make_attempt())

        assert it.broker.words == ["analyze.log@0", "analyze succeeded", "completed"]
        statuses = [payload for _, payload in it.broker.arrived if isinstance(payload, WorkStatus)]
        assert statuses[0].pieces[0].type == "metrics"
        assert statuses[1].steps[0].message == "with [redacted]"


async def test_a_step_that_was_reported_goes_ahead_of_the_result(tmp_path: Path) -> None:
    async def do(context: ExecutionContext) -> Outcome:
        context.step(0, "analyze", StepStatus.IN_PROGRESS)
        context.step(0, "analyze", StepStatus.FAILED, "No docker.")
        return Outcome.failed("No docker.")

    async with running(tmp_path, Scripted(do)) as it:
        await it.runner.run(make_attempt())

        assert it.broker.words == ["analyze in_progress", "analyze failed", "failed"]
        assert {address for address, _ in it.broker.arrived} == {reply_address(AGENT, PROGRESS)}


async def test_while_files_wait_for_the_broker_the_result_is_on_disk(tmp_path: Path) -> None:
    async def do(context: ExecutionContext) -> Outcome:
        it.broker.is_away = True
        (context.workspace / "out").write_bytes(b"x")
        return Outcome(ResultStatus.COMPLETED)

    attempt = make_attempt(artifacts=["out"])
    async with running(tmp_path, Scripted(do)) as it:
        ending = asyncio.create_task(it.runner.run(attempt))
        await eventually(lambda: list((tmp_path / "spool").glob("*.jsonl")))
        assert not ending.done()

        it.broker.is_away = False
        await ending

        assert it.broker.words == ["out@0", "completed"]


async def test_an_attempt_that_is_given_up_leaves_its_files_and_its_result_to_the_next_life(tmp_path: Path) -> None:
    async def do(context: ExecutionContext) -> Outcome:
        it.broker.is_away = True
        (context.workspace / "out").write_bytes(b"x")
        return Outcome(ResultStatus.COMPLETED)

    attempt = make_attempt(artifacts=["out"])
    async with running(tmp_path, Scripted(do)) as it:
        ending = asyncio.create_task(it.runner.run(attempt))
        await eventually(lambda: bool(owed(tmp_path)) and any((tmp_path / "spool").glob("*.jsonl")))
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)

    assert [artifact.name for artifact in owed(tmp_path)] == ["out"]
    assert [key.task_id for key in make_result_spool(tmp_path / "work").open()] == [attempt.task_id]


async def test_secrets_of_the_attempt_are_hidden_in_its_files_too(tmp_path: Path) -> None:
    async def do(context: ExecutionContext) -> Outcome:
        context.hide("from-a-variable-of-the-host")
        (context.workspace / "out").write_text(f"{SECRET} from-a-variable-of-the-host")
        (context.workspace / "bin").write_bytes(b"\x00from-a-variable-of-the-host")
        await context.write(Stream.STDOUT, b"from-a-variable-of-the-host")
        return Outcome(ResultStatus.COMPLETED)

    async with running(tmp_path, Scripted(do)) as it:
        await it.runner.run(make_attempt(artifacts=["*"]))

        [status] = [payload for _, payload in it.broker.arrived if isinstance(payload, WorkStatus) and payload.pieces]
        assert status.pieces[0].raw == b"[redacted] [redacted]"
        assert it.broker.result.output == "[redacted]"
        assert "'bin': it holds a secret of this host" in str(it.broker.result.error_message)


async def test_a_problem_with_a_file_whose_name_is_secret_does_not_tell_it(tmp_path: Path) -> None:
    async def do(context: ExecutionContext) -> Outcome:
        (context.workspace / SECRET).write_bytes(b"")
        return Outcome(ResultStatus.COMPLETED)

    async with running(tmp_path, Scripted(do)) as it:
        await it.runner.run(make_attempt(artifacts=["*"]))

        assert it.broker.result.error_message == "Not kept: '[redacted]': its name holds a secret."


async def run_program(context: ExecutionContext, *, lasts: bool, seconds: float) -> Finished:
    """Run a program that ends by itself; no stop of the attempt is for it."""
    command = Command(["/bin/sleep", f"{seconds}"], context.workspace, {}, b"", 60.0, 1.0)
    keepers = context.lasting if lasts else context.keepers
    return await run_process(keepers, command, write=context.write, stop=StopSignal(), started=context.process_started)


@pytest.mark.parametrize(("lasts", "ended_by"), [(True, 0), (False, -9)])
async def test_only_a_lasting_program_outlives_its_lease(tmp_path: Path, lasts: bool, ended_by: int) -> None:
    codes: list[int] = []

    async def do(context: ExecutionContext) -> Outcome:
        codes.append((await run_program(context, lasts=lasts, seconds=1.0)).returncode)
        return Outcome(ResultStatus.COMPLETED)

    async with running(tmp_path, Owning(do)) as it:
        await it.runner.run(make_attempt(lease=0.5))

        assert it.broker.words == ["completed"]
    assert codes == [ended_by]


async def test_a_renewed_lease_says_nothing_to_a_lasting_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    monkeypatch.setattr(Keeper, "kill_at", lambda _, at: told.append(at))
    attempt = make_attempt()

    async def do(context: ExecutionContext) -> Outcome:
        await run_program(context, lasts=True, seconds=0)
        it.deadlines.renewed(attempt)
        return Outcome(ResultStatus.COMPLETED)

    async with running(tmp_path, Owning(do)) as it:
        await it.runner.run(attempt)

    assert all(at == math.inf for at in told)


async def test_an_order_to_stop_asks_work_that_owns_its_end_for_it(tmp_path: Path) -> None:
    attempt = make_attempt()

    async def do(context: ExecutionContext) -> Outcome:
        assert it.runner.lasting == 1
        attempt.stop.order(StopReason.LEASE_LOST, grace=0)
        await context.stop.wait()
        finished = await run_program(context, lasts=True, seconds=0.3)
        return Outcome.failed("Rolled back.", exit_code=finished.returncode)

    async with running(tmp_path, Owning(do)) as it:
        await it.runner.run(attempt)

        assert it.runner.lasting == 0
        assert (it.broker.result.error_message, it.broker.result.exit_code) == ("Rolled back.", 0)


async def test_other_work_has_nothing_that_lasts(tmp_path: Path) -> None:
    async def do(context: ExecutionContext) -> Outcome:
        assert it.runner.lasting == 0
        with pytest.raises(RuntimeError, match="owns_its_end"):
            await run_program(context, lasts=True, seconds=0)
        return Outcome(ResultStatus.COMPLETED)

    async with running(tmp_path, Scripted(do)) as it:
        await it.runner.run(make_attempt())

        assert it.broker.words == ["completed"]
