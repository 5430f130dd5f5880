"""What an attempt's end looks like on the wire."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from agents.attempts.stopping import StopReason
from agents.executors.base import Outcome
from common.errors import ErrorCode
from common.messages import LONGEST_MESSAGE, GrantedTask, OutputChunk, ResultStatus, Stream, WorkResult
from common.protocol import ORCHESTRATOR, WorkResultEnvelope

# Failures of the infrastructure, which may be gone at the next attempt. An error with another code is none of these;
# one without a code is the executor's own, who says itself whether it is worth another attempt.
RETRYABLE = frozenset({ErrorCode.TIMEOUT, ErrorCode.AGENT_UNAVAILABLE, ErrorCode.RESOURCE_LIMIT})

HANDED_BACK: Mapping[StopReason, str] = {
    StopReason.AGENT_STOPPING: "The agent stopped before the work had ended.",
    StopReason.LEASE_LOST: "The agent lost its lease and stopped the work.",
    StopReason.NO_SLOT: "The agent had no slot for the work.",
}


def as_reported(outcome: Outcome, reason: StopReason | None) -> Outcome:
    """Say how work that was stopped counts: only a cancel was wanted; otherwise it may be tried again elsewhere."""
    if outcome.status is not ResultStatus.CANCELLED or reason is None or reason is StopReason.CANCELLED:
        return outcome
    return Outcome.failed(
        HANDED_BACK[reason], code=ErrorCode.AGENT_UNAVAILABLE, exit_code=outcome.exit_code, retryable=True
    )


def is_retryable(outcome: Outcome) -> bool:
    """Say whether another attempt may end differently."""
    if outcome.status is not ResultStatus.FAILED:
        return False
    return outcome.retryable if outcome.error_code is None else outcome.error_code in RETRYABLE


def work_result(
    agent_id: UUID,
    grant: GrantedTask,
    outcome: Outcome,
    *,
    duration_ms: int = 0,
    output: str = "",
    chunks: Sequence[OutputChunk] = (),
    output_bytes: Mapping[Stream, int] | None = None,
    output_dropped: Mapping[Stream, int] | None = None,
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
            error_message=None if outcome.error_message is None else outcome.error_message[:LONGEST_MESSAGE],
            error_code=outcome.error_code,
            exit_code=outcome.exit_code,
            result=outcome.result,
            duration_ms=duration_ms,
            agent_id=agent_id,
            attempt=grant.attempt,
            retryable=is_retryable(outcome),
            started=started,
            chunks=list(chunks),
            output_bytes=dict.fromkeys(Stream, 0) if output_bytes is None else dict(output_bytes),
            output_dropped=dict(output_dropped or {}),
        ),
    )


def handed_back(agent_id: UUID, grant: GrantedTask, *, was_cancelled: bool) -> WorkResultEnvelope:
    """Return the report of an attempt that was granted too late to be run."""
    if was_cancelled:
        outcome = Outcome(ResultStatus.CANCELLED)
    else:
        message = "The agent got the grant too late to run it."
        outcome = Outcome.failed(message, code=ErrorCode.AGENT_UNAVAILABLE, retryable=True)
    return work_result(agent_id, grant, outcome, started=False)
