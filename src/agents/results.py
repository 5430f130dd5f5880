"""What an attempt's end looks like on the wire."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from agents.executors.base import Outcome
from agents.stopping import StopReason
from common.errors import ErrorCode
from common.messages import GrantedTask, OutputChunk, ResultStatus, Stream, WorkResult
from common.protocol import ORCHESTRATOR, WorkResultEnvelope

HANDED_BACK: Mapping[StopReason, str] = {
    StopReason.AGENT_STOPPING: "The agent stopped before the work had ended.",
    StopReason.LEASE_LOST: "The agent lost its lease and stopped the work.",
}


def as_reported(outcome: Outcome, reason: StopReason | None) -> Outcome:
    """Say how work that was stopped counts: only a cancel was wanted; otherwise it may be tried again elsewhere."""
    if outcome.status is not ResultStatus.CANCELLED or reason is None or reason is StopReason.CANCELLED:
        return outcome
    return Outcome.failed(
        HANDED_BACK[reason], code=ErrorCode.AGENT_UNAVAILABLE, exit_code=outcome.exit_code, retryable=True
    )


def work_result(
    agent_id: UUID,
    grant: GrantedTask,
    outcome: Outcome,
    *,
    duration_ms: int = 0,
    output: str = "",
    chunks: Sequence[OutputChunk] = (),
    output_bytes: Mapping[Stream, int] | None = None,
    started: bool = True,
) -> WorkResultEnvelope:
    """Return the report of an attempt's end."""
    return WorkResultEnvelope(
        from_agent=str(agent_id),
        to_agent=ORCHESTRATOR,
        trace_id=grant.trace_id,
        request_id=grant.request_id,
        payload=WorkResult(
            task_id=grant.work.task_id,
            status=outcome.status,
            output=output,
            error_message=outcome.error_message,
            error_code=outcome.error_code,
            exit_code=outcome.exit_code,
            duration_ms=duration_ms,
            agent_id=agent_id,
            attempt=grant.attempt,
            fence=grant.fence,
            retryable=outcome.retryable,
            started=started,
            chunks=list(chunks),
            output_bytes=dict(output_bytes or dict.fromkeys(Stream, 0)),
        ),
    )


def handed_back(agent_id: UUID, grant: GrantedTask, message: str) -> WorkResultEnvelope:
    """Return the report of an attempt that was granted and never began."""
    outcome = Outcome.failed(message, code=ErrorCode.AGENT_UNAVAILABLE, retryable=True)
    return work_result(agent_id, grant, outcome, started=False)
