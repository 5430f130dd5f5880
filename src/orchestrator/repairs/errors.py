"""What the contract calls an error, and what helps. Each is still answered in the one shape, with two fields more."""

from http import HTTPStatus
from typing import Any, NamedTuple

from common.errors import ChiffonError, Conflict, ErrorCode, Invalid
from common.rest.errors import ErrorResponse
from common.rest.repairs import RepairProblem
from orchestrator.approvals.rules import ApprovalNotPossible
from orchestrator.repairs.planner import InvalidInstruction
from orchestrator.repairs.profiles import UnknownService
from orchestrator.runs.service import RunNotFound


class ApprovalNotApplicable(Conflict):
    """The repair does not wait for an approval."""

    code = ErrorCode.APPROVAL_NOT_POSSIBLE


class ApprovalInvalid(Conflict):
    """What was sent is no approval of what the repair waits for."""

    code = ErrorCode.APPROVAL_NOT_POSSIBLE


class RetryNotAllowed(Conflict):
    """The repair does not stand so that it can be tried again."""

    code = ErrorCode.RUN_NOT_POSSIBLE


class MissingActionPlan(Conflict):
    """The run is no repair."""

    code = ErrorCode.RUN_NOT_POSSIBLE


class InvalidResumeStep(Invalid, ValueError):
    """A step from which the repair cannot go on, because one before it did not succeed."""

    code = ErrorCode.INVALID_REQUEST


class Meaning(NamedTuple):
    word: str
    remediation: str
    status: HTTPStatus | None = None


MEANINGS: tuple[tuple[type[ChiffonError], Meaning], ...] = (
    (
        UnknownService,
        Meaning("unknown_service", "Name one of the allowed services, or have this one added to the services file."),
    ),
    (
        InvalidInstruction,
        Meaning("invalid_instruction", "Say what is to be done, and give a diff or commands.", HTTPStatus.BAD_REQUEST),
    ),
    (RunNotFound, Meaning("run_not_found", "GET /orchestrator/runs lists the runs that there are.")),
    (
        ApprovalNotApplicable,
        Meaning("approval_not_applicable", "Look at the run: it may have been approved, or have ended."),
    ),
    (
        ApprovalInvalid,
        Meaning("approval_invalid", "Send who you are, a role of yours that counts, and the run's approval_id."),
    ),
    (ApprovalNotPossible, Meaning("approval_invalid", "Look at the approval: it may be decided, or be too late.")),
    (
        RetryNotAllowed,
        Meaning("retry_not_allowed", "Try it again once it has failed, was rolled back or was cancelled."),
    ),
    (
        MissingActionPlan,
        Meaning("missing_action_plan", "Try it again as a run: POST /api/v1/runs/{run_id}/retry."),
    ),
    (
        InvalidResumeStep,
        Meaning("invalid_resume_step", "Resume from an earlier step, or leave the step out.", HTTPStatus.BAD_REQUEST),
    ),
)


def problem_in_words(error: ChiffonError, problem: ErrorResponse) -> RepairProblem:
    """Return the body for an error, made of the one that all routes would answer."""
    for kind, meaning in MEANINGS:
        if isinstance(error, kind):
            status = meaning.status or HTTPStatus(problem.status)
            return _more(problem, meaning.word, meaning.remediation, status=status, title=status.phrase)
    return _more(problem, ErrorCode(error.code).name.lower(), None)


def invalid_request(problem: ErrorResponse) -> RepairProblem:
    """Return the body for a request that cannot be read."""
    return _more(problem, "invalid_request", None)


def _more(problem: ErrorResponse, word: str, remediation: str | None, **changed: Any) -> RepairProblem:
    return RepairProblem(**{**dict(problem), **changed}, error=word, remediation=remediation)
