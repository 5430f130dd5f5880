"""Run one attempt from its grant to its stored result."""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from agents.attempts import Attempt, Attempts
from agents.executors.base import ExecutionContext, Executor, Outcome
from agents.executors.environment import inherited
from agents.log_stream import LogStream
from agents.reporter import Reporter
from agents.results import as_reported, work_result
from agents.workspace import Workspaces
from common.broker.topology import PROGRESS, RESULTS
from common.clock import Clock
from common.errors import ErrorCode
from common.logs import log_context
from common.messages import GrantedTask, OutputChunk, ResultStatus, WorkStatus
from common.protocol import ORCHESTRATOR, WorkStatusEnvelope

log = logging.getLogger(__name__)


class Runner:
    """Gives an attempt its workspace, its executor and its log, and reports how it ended."""

    def __init__(
        self,
        agent_id: UUID,
        *,
        executors: Mapping[str, Executor],
        workspaces: Workspaces,
        reporter: Reporter,
        attempts: Attempts,
        clock: Clock,
        env_allow: Sequence[str],
        kill_grace: timedelta,
    ) -> None:
        self._agent_id = agent_id
        self._executors = executors
        self._workspaces = workspaces
        self._reporter = reporter
        self._attempts = attempts
        self._clock = clock
        self._inherited = inherited(env_allow)
        self._kill_grace = kill_grace.total_seconds()

    async def run(self, attempt: Attempt) -> None:
        """Run the attempt to its end; returns when the result is with the broker."""
        grant = attempt.grant
        with log_context(
            task_id=attempt.task_id, trace_id=grant.trace_id, request_id=grant.request_id, agent_id=self._agent_id
        ):
            log.info("work.started", extra={"work_type": grant.work.work_type, "attempt": grant.attempt})
            # The lease is kept until the result is stored: a result that comes after its end counts for nothing.
            try:
                await self._run_and_report(attempt)
            finally:
                self._attempts.remove(attempt)

    async def _run_and_report(self, attempt: Attempt) -> None:
        grant = attempt.grant
        started = self._clock.monotonic()

        async def send(chunks: Sequence[OutputChunk]) -> None:
            await self._reporter.send(PROGRESS, self._status(grant, chunks))

        async with LogStream(send) as stream:
            outcome = as_reported(await self._execute(attempt, stream), attempt.stop.reason)
            last_chunks = await stream.close()
            duration_ms = int((self._clock.monotonic() - started) * 1000)
            log.info(
                "work.ended",
                extra={
                    "status": outcome.status.value,
                    "exit_code": outcome.exit_code,
                    "duration_ms": duration_ms,
                    "reason": outcome.error_message,
                    "stopped": attempt.stop.reason,
                },
            )
            # Behind its own output, in the same queue, so that those who watch see the end last.
            await self._reporter.send(
                PROGRESS if stream.has_sent else RESULTS,
                work_result(
                    self._agent_id,
                    grant,
                    outcome,
                    duration_ms=duration_ms,
                    output=stream.tail,
                    chunks=last_chunks,
                    output_bytes=stream.totals,
                ),
            )

    async def _execute(self, attempt: Attempt, stream: LogStream) -> Outcome:
        grant = attempt.grant
        if attempt.stop.reason is not None:
            return Outcome(ResultStatus.CANCELLED)
        executor = self._executors.get(grant.work.work_type)
        if executor is None:  # the orchestrator granted something else than the ticket said
            return Outcome.failed(
                f"This agent has no executor for {grant.work.work_type!r}.", code=ErrorCode.UNSUPPORTED_WORK_TYPE
            )
        try:
            async with self._workspaces.open(attempt.task_id, grant.attempt) as workspace:
                context = ExecutionContext(
                    workspace=workspace,
                    inherited=self._inherited,
                    ids={
                        "CHIFFON_TASK_ID": str(attempt.task_id),
                        "CHIFFON_TRACE_ID": str(grant.trace_id),
                        "CHIFFON_ATTEMPT": str(grant.attempt),
                    },
                    write=stream.write,
                    stop=attempt.stop,
                    kill_grace_seconds=self._kill_grace,
                )
                return await executor.execute(grant.work, context)
        except OSError as error:
            log.exception("work.host_failed")
            return Outcome.failed(f"The host failed: {error}.", code=ErrorCode.RESOURCE_LIMIT, retryable=True)
        except Exception as error:  # the agent lives on, and the task learns that it failed
            log.exception("work.executor_failed")
            return Outcome.failed(f"The executor failed: {type(error).__name__}.", code=ErrorCode.INTERNAL)

    def _status(self, grant: GrantedTask, chunks: Sequence[OutputChunk]) -> WorkStatusEnvelope:
        return WorkStatusEnvelope(
            from_agent=str(self._agent_id),
            to_agent=ORCHESTRATOR,
            trace_id=grant.trace_id,
            request_id=grant.request_id,
            payload=WorkStatus(
                task_id=grant.work.task_id,
                agent_id=self._agent_id,
                attempt=grant.attempt,
                fence=grant.fence,
                chunks=list(chunks),
            ),
        )
