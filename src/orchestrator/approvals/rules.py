"""Who may answer, when it is decided, and what an approval is good for: pure decisions."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from common.canonical import work_digest
from common.errors import Conflict, ErrorCode
from common.rest.approvals import ApprovalState
from common.rest.identities import PrincipalKind
from orchestrator.approvals.model import Approval, StoredWork, Vote
from orchestrator.identities.model import Caller, Forbidden


class ApprovalNotPossible(Conflict):
    """The approval does not stand so that this can be done to it."""

    code = ErrorCode.APPROVAL_NOT_POSSIBLE


class ApprovalMismatch(Conflict):
    """The approval is not one for exactly this work, or is used up, or does not hold any more."""

    code = ErrorCode.APPROVAL_MISMATCH

    def __init__(self, approval_id: UUID, problem: str) -> None:
        super().__init__(f"approval_id {approval_id} does not let this run: {problem}.")


@dataclass(frozen=True, slots=True)
class Counts:
    """The vote is new, and leaves the approval in this state."""

    state: ApprovalState


@dataclass(frozen=True, slots=True)
class Repeats:
    """The person said the same before: nothing changes."""


def judge_vote(approval: Approval, votes: Iterable[Vote], by: Caller, *, yes: bool, now: datetime) -> Counts | Repeats:
    """Say what a vote does. Raises `Forbidden` for who may not answer, `ApprovalNotPossible` when it is too late.

    All tokens of a person are one person. One no is enough to reject.
    """
    check_voter(approval, by)
    votes = list(votes)
    own = next((vote for vote in votes if vote.principal_id == by.principal_id), None)
    if own is not None and own.yes == yes:
        return Repeats()
    check_open(approval, now=now)
    if own is not None:
        raise ApprovalNotPossible(f"{by.name!r} has answered this already, with {'yes' if own.yes else 'no'}.")
    if not yes:
        return Counts(ApprovalState.REJECTED)
    said_yes = 1 + sum(vote.yes for vote in votes)
    return Counts(ApprovalState.APPROVED if said_yes >= approval.approvers else ApprovalState.WAITING)


def check_voter(approval: Approval, by: Caller) -> None:
    """Raise `Forbidden` unless the caller may answer: another person than the one who asks, of a role that counts."""
    if by.kind is not PrincipalKind.PERSON:
        raise Forbidden(f"{by.name!r} is no person: only people approve or reject.")
    if by.principal_id == approval.requester_id:
        raise Forbidden("Nobody approves or rejects a request of their own; to withdraw it, cancel the task.")
    if not by.roles & set(approval.roles):
        raise Forbidden(f"{by.name!r} has none of the roles that count here: {', '.join(approval.roles)}.")


def check_open(approval: Approval, *, now: datetime) -> None:
    """Raise `ApprovalNotPossible` unless it still waits for answers."""
    if approval.state is not ApprovalState.WAITING:
        raise ApprovalNotPossible(
            f"The approval {approval.approval_id} does not wait any more: it is {approval.state}."
        )
    if approval.expires_at <= now:
        raise ApprovalNotPossible(f"The approval {approval.approval_id} waited for an answer until {_time(approval)}.")


def judge_use(approval: Approval | None, digest: bytes, *, task_id: UUID, now: datetime) -> str | None:
    """Say why an approval does not let a new task run; None when it does, or did so before for this very task."""
    if approval is None:
        return "there is no such approval"
    if approval.digest != digest:
        return "it is for other content, another target or another version of the policy"
    if approval.task_id == task_id:
        return None
    if approval.task_id is not None:
        return f"it is used already, by the task {approval.task_id}"
    if approval.state is not ApprovalState.APPROVED:
        return f"it is {approval.state}"
    if approval.valid_until is None or approval.valid_until <= now:
        return "it does not hold any more"
    return None


def digest_of(work: StoredWork) -> bytes | None:
    """Return the digest of what a task would run now; None for what has none, and so was never dispatched."""
    try:
        return work_digest(
            work_type=work.work_type,
            parameters=work.parameters,
            hints=work.hints,
            target=work.agent_type,
            policy_version=work.policy_version,
        )
    except ValueError:
        return None


def withhold(work: StoredWork, approval: Approval | None, *, now: datetime) -> str | None:
    """Say why a task that waits must not run; None when it may. `approval` is the one that it names."""
    if work.work_digest is None and not work.policy_version:
        return None  # from before there were policies
    if (digest := digest_of(work)) is None or digest != work.work_digest:
        return "what is stored is not what was dispatched: its digest differs"
    if work.approval_id is None:
        return None
    if approval is None or (approval.digest, approval.task_id) != (digest, work.task_id):
        return "what is stored is not what was approved"
    match approval.state:
        case ApprovalState.USED:
            return None
        case ApprovalState.APPROVED if approval.valid_until is not None and approval.valid_until > now:
            return None
        case ApprovalState.APPROVED:
            return "its approval does not hold any more"
        case _:
            return f"its approval is {approval.state}"


def _time(approval: Approval) -> str:
    return approval.expires_at.isoformat(timespec="seconds")
