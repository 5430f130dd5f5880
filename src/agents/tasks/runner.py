"""Run one attempt from its grant to its result."""

import asyncio
import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from agents.artifacts.keep import AttemptFiles, Files
from agents.artifacts.spool import Owner
from agents.attempts.owned import Attempt
from agents.attempts.stopping import StopReason
from agents.attempts.workspace import Workspaces
from agents.disk.journal import Ended, Journal
from agents.disk.spool_lines import WrittenResult
from agents.executors.base import ExecutionContext, Outcome
from agents.executors.enforcement import CannotConfine, Enforcement
from agents.executors.environment import inherited
from agents.gate.write_gate import Passage, Refusal, WriteGate
from agents.link.reporter import Reporter
from agents.output.log_stream import LogStream, SendChunks
from agents.output.progress import Progress
from agents.output.progress_file import PROGRESS_VARIABLE, ProgressFiles, file_in
from agents.output.steps import Steps, status_of
from agents.processes.deadlines import Deadlines, deadline_of
from agents.processes.keepers import Keeper, Keepers, Launch
from agents.processes.programs import Programs
from agents.processes.table import ATTEMPT_VARIABLE, TASK_VARIABLE
from agents.secrets.resolve import Secrets
from agents.tasks.handover import Handover
from agents.tasks.results import as_reported, work_result
from agents.tasks.slots import Slots
from common.broker.topology import PROGRESS, RESULTS
from common.clock import Clock
from common.errors import ErrorCode
from common.logs import log_context
from common.messages import GrantedTask, OutputChunk, ResultStatus, StepReport, WorkStatus
from common.protocol import ORCHESTRATOR, WorkStatusEnvelope
from common.redaction.values import Values

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Voice:
    """All by which an attempt is heard."""

    stream: LogStream
    progress: Progress
    steps: Steps
    files: AttemptFiles | None

    @property
    def has_spoken(self) -> bool:
        """Whether anything went ahead of the result."""
        has_kept = self.files is not None and self.files.has_kept
        return self.stream.has_sent or self.progress.has_sent or self.steps.has_sent or has_kept

    @property
    def is_done(self) -> bool:
        """Whether nothing has to go ahead of the result any more."""
        return self.stream.is_done and (self.files is None or self.files.are_sent)


class _Lasting:
    """Starts programs that live on when the lease of their attempt ends."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._keepers: set[Keeper] = set()

    def has(self, keeper: Keeper) -> bool:
        return keeper in self._keepers

    async def start(self, launch: Launch, files: Sequence[int]) -> Keeper:
        """See `Keepers.start`."""
        keeper = await self._programs.start(launch, files)
        self._keepers.add(keeper)
        return keeper


class Runner:
    """Gives an attempt its workspace, its executor and its log, and reports how it ended.

    Without `files` its work gets none, and none are kept.
    """

    def __init__(
        self,
        agent_id: UUID,
        *,
        gate: WriteGate,
        workspaces: Workspaces,
        progress_files: ProgressFiles,
        reporter: Reporter,
        handover: Handover,
        journal: Journal,
        slots: Slots,
        keepers: Keepers,
        deadlines: Deadlines,
        clock: Clock,
        env_allow: Sequence[str],
        kill_grace: timedelta,
        known_secrets: Values | None = None,
        secrets: Secrets | None = None,
        enforcement: Enforcement | None = None,
        output_per_second: int | None = None,
        files: Files | None = None,
    ) -> None:
        self._agent_id = agent_id
        self._gate = gate
        self._workspaces = workspaces
        self._progress_files = progress_files
        self._reporter = reporter
        self._handover = handover
        self._journal = journal
        self._slots = slots
        self._keepers = keepers
        self._deadlines = deadlines
        self._clock = clock
        self._inherited = inherited(env_allow)
        self._kill_grace = kill_grace.total_seconds()
        self._known_secrets = known_secrets or Values()
        self._enforcement = enforcement or Enforcement()
        self._secrets = secrets or Secrets({}, self._known_secrets, keepers, inherited={})
        self._output_per_second = output_per_second
        self._files = files
        self._lasting = 0

    @property
    def lasting(self) -> int:
        """How many attempts run now that own their end."""
        return self._lasting

    async def run(self, attempt: Attempt) -> None:
        """Run the attempt to its end; returns when its result is on disk and with the broker."""
        grant = attempt.grant
        with log_context(
            task_id=attempt.task_id, trace_id=grant.trace_id, request_id=grant.request_id, agent_id=self._agent_id
        ):
            log.info("work.started", extra={"work_type": grant.work.work_type, "attempt": grant.attempt})
            try:
                await self._run_and_report(attempt)
            finally:
                self._deadlines.done(attempt)

    async def _run_and_report(self, attempt: Attempt) -> None:
        grant = attempt.grant
        started = self._clock.monotonic()

        async def send(chunks: Sequence[OutputChunk]) -> None:
            await self._reporter.send(PROGRESS, self._status(grant, chunks))

        def hand_in(report: str) -> asyncio.Future[None]:
            return self._reporter.post(PROGRESS, self._status(grant, progress=report))

        async with self._log_stream(grant, send) as stream:
            with Progress(hand_in, hidden=stream.redacted) as progress:
                voice = _Voice(stream, progress, self._steps(grant, stream), self._files_of(grant, stream))
                outcome, began, ran = await self._execute(attempt, voice)
                progress.finish()
            ended_at = self._clock.now()
            outcome = as_reported(outcome, attempt.stop.reason).leaving(stream.redacted)
            duration_ms = int((self._clock.monotonic() - started) * 1000)

            def written(chunks: Sequence[OutputChunk]) -> WrittenResult:
                return WrittenResult.of(
                    work_result(
                        self._agent_id,
                        grant,
                        outcome,
                        duration_ms=duration_ms,
                        output=stream.tail,
                        chunks=chunks,
                        output_bytes=stream.totals,
                        output_dropped=stream.dropped,
                        started=ran,
                    )
                )

            def kept() -> None:
                if began:
                    self._journal.ended(_ended(attempt, outcome, at=ended_at))
                _log_end(attempt, outcome, duration_ms=duration_ms)

            def queue() -> str:
                # Behind all else of it, in the same queue, so that readers see the end last.
                return PROGRESS if voice.has_spoken else RESULTS

            unsent = stream.finish()
            result = written(unsent)
            if voice.is_done:
                # Counted now, so that the message with the result asks for the next task. Of one that got no slot it is
                # counted later: while results are stuck, and slots with them, no more is asked for.
                if attempt.stop.reason is not StopReason.NO_SLOT:
                    self._slots.end(attempt)
                await self._handover.hand_over(result, queue=queue(), kept=kept)
                return
            # On disk with all output that may not have arrived, before anything waits for the broker.
            await self._handover.keep(result)
            kept()
            rest = await stream.close()
            if voice.files is not None:
                await voice.files.sent()
            last = result if rest == unsent else written(rest)
            self._slots.end(attempt)
            await self._handover.send(last, queue=queue())

    def _log_stream(self, grant: GrantedTask, send: SendChunks) -> LogStream:
        return LogStream(
            send, limit=grant.max_output_bytes, per_second=self._output_per_second, known=self._known_secrets
        )

    def _steps(self, grant: GrantedTask, stream: LogStream) -> Steps:
        def hand_in(report: StepReport) -> asyncio.Future[None]:
            status = status_of(
                self._agent_id,
                grant.work.task_id,
                grant.attempt,
                [report],
                trace_id=grant.trace_id,
                request_id=grant.request_id,
            )
            return self._reporter.post(PROGRESS, status)

        return Steps(hand_in, hidden=stream.redacted)

    def _files_of(self, grant: GrantedTask, stream: LogStream) -> AttemptFiles | None:
        owner = Owner(grant.work.task_id, grant.attempt, grant.trace_id, grant.request_id)
        return None if self._files is None else self._files.of(owner, stream.secrets)

    async def _execute(self, attempt: Attempt, voice: _Voice) -> tuple[Outcome, bool, bool]:
        """Return how the attempt ended, whether the journal says that it began, and whether anything of it ran.

        What did not run goes back to the queue, and to another agent first.
        """
        grant = attempt.grant
        if attempt.stop.reason is not None:
            return Outcome(ResultStatus.CANCELLED), False, False
        passage = self._gate.admit(grant, attempt.signature, attempt.credit)
        if isinstance(passage, Refusal):
            return passage.outcome, False, False
        programs = Programs(self._keepers, kill_at=lambda: deadline_of(attempt))
        lasting = Programs(self._keepers, kill_at=lambda: math.inf)
        self._lasting += passage.owns_its_end
        try:
            needed = passage.needs_workspace
            async with self._workspaces.open(attempt.task_id, grant.attempt, is_needed=needed) as workspace:
                file = self._progress_files.followed(workspace, voice.progress.read) if needed else nullcontext()
                async with file:
                    outcome = await passage.execute(
                        self._context(attempt, passage, workspace, voice, programs, _Lasting(lasting))
                    )
        except CannotConfine as error:
            outcome = Outcome.failed(str(error), code=ErrorCode.CONFINEMENT_NOT_POSSIBLE)
            return outcome, passage.began, False
        except OSError as error:
            log.exception("work.host_failed")
            outcome = Outcome.failed(f"The host failed: {error}.", code=ErrorCode.RESOURCE_LIMIT, retryable=True)
            has_run = programs.may_have_run or lasting.may_have_run
            is_untouched = passage.needs_workspace and not has_run
            return outcome, passage.began, passage.began and not is_untouched
        except Exception as error:  # the agent lives on, and the task learns that it failed
            log.exception("work.executor_failed")
            outcome = Outcome.failed(f"The executor failed: {type(error).__name__}.", code=ErrorCode.INTERNAL)
        finally:
            self._lasting -= passage.owns_its_end
        return outcome, passage.began, passage.began

    def _context(
        self,
        attempt: Attempt,
        passage: Passage,
        workspace: Path,
        voice: _Voice,
        programs: Programs,
        lasting: _Lasting,
    ) -> ExecutionContext:
        """Return what an executor needs."""
        grant = attempt.grant

        def process_started(keeper: Keeper) -> None:
            if not lasting.has(keeper):
                self._deadlines.hold(attempt, keeper)
            self._journal.process_started(
                grant,
                pid=keeper.pid,
                start_ticks=keeper.start_ticks,
                keeper_pid=keeper.keeper_pid,
                keeper_ticks=keeper.keeper_ticks,
            )

        async def secret(name: str) -> str:
            value = await self._secrets.value(
                name, work_type=grant.work.work_type, stop=attempt.stop, started=process_started
            )
            voice.stream.hide(value)
            return value

        context = ExecutionContext(
            workspace=workspace,
            inherited=self._inherited,
            ids={
                TASK_VARIABLE: str(attempt.task_id),
                "CHIFFON_TRACE_ID": str(grant.trace_id),
                ATTEMPT_VARIABLE: str(grant.attempt),
                PROGRESS_VARIABLE: str(file_in(workspace)),
            },
            write=voice.stream.write,
            stop=attempt.stop,
            kill_grace_seconds=self._kill_grace,
            keepers=programs,
            process_started=process_started,
            secret=secret,
            enclosure=self._enforcement.enclosure(passage.confinement),
            progress=voice.progress.say,
            hide=voice.stream.hide,
            hidden=voice.stream.redacted,
            step=voice.steps.say,
        )
        if voice.files is not None:
            context = replace(context, keep=voice.files.keep, transfer=voice.files)
        return replace(context, lasting=lasting) if passage.owns_its_end else context

    def _status(
        self, grant: GrantedTask, chunks: Sequence[OutputChunk] = (), *, progress: str = ""
    ) -> WorkStatusEnvelope:
        return WorkStatusEnvelope(
            from_agent=str(self._agent_id),
            to_agent=ORCHESTRATOR,
            trace_id=grant.trace_id,
            request_id=grant.request_id,
            payload=WorkStatus(
                task_id=grant.work.task_id,
                agent_id=self._agent_id,
                attempt=grant.attempt,
                progress=progress,
                chunks=list(chunks),
            ),
        )


def _ended(attempt: Attempt, outcome: Outcome, *, at: datetime) -> Ended:
    return Ended(
        at=at,
        task_id=attempt.task_id,
        attempt=attempt.number,
        status=outcome.status,
        exit_code=outcome.exit_code,
        error_code=outcome.error_code,
        reason=attempt.stop.reason,
    )


def _log_end(attempt: Attempt, outcome: Outcome, *, duration_ms: int) -> None:
    log.info(
        "work.ended",
        extra={
            "status": outcome.status,
            "exit_code": outcome.exit_code,
            "duration_ms": duration_ms,
            "reason": outcome.error_message,
            "stopped": attempt.stop.reason,
        },
    )
