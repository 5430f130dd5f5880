"""Who may answer, when it is decided, and what an approval is good for: pure decisions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from common.canonical import canonical_json, work_digest
from common.errors import Conflict, ErrorCode
from common.rest.approvals import ApprovalState
from common.rest.identities import PrincipalKind
from orchestrator.approvals.model import Approval, StoredWork, Terms, Vote, approved_digest
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
class Use:
    """A new task that names an approval which was asked for before, with what it would run, and who dispatches it."""

    approval_id: UUID
    task_id: UUID
    trace_id: UUID
    digest: bytes
    content: Mapping[str, Any]
    terms: Terms
    by: UUID


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
    """Raise `Forbidden` unless the caller may answer: another person than the one who asks, of a role that counts,
    with a token of their own.
    """
    if by.kind is not PrincipalKind.PERSON:
        raise Forbidden(f"{by.name!r} is no person: only people approve or reject.")
    if by.principal_id == approval.requester_id:
        raise Forbidden("Nobody approves or rejects a request of their own; to withdraw it, cancel the task.")
    if not by.roles & set(approval.roles):
        raise Forbidden(f"{by.name!r} has none of the roles that count here: {', '.join(approval.roles)}.")
    check_token(approval, by)


def check_token(approval: Approval, by: Caller) -> None:
    """Raise `Forbidden` for a token that another knows, too, or that exists through the one who asks; and for a person
    who knows the token with which it was asked.
    """
    token = by.token
    if token is None:
        raise Forbidden("Only a token tells who approves or rejects, and this request has none.")
    if token.claimed_at is None:
        raise Forbidden(
            f"{token.created_by!r} made this token of {by.name!r} and knows it, too: claim it first "
            "(chiffon tokens claim), and approve or reject with the token that takes its place."
        )
    if approval.requested_by in token.makers:
        raise Forbidden(
            f"{approval.requested_by!r}, who asks for this, made this token of {by.name!r}, or one it comes from: "
            "use a token that another administrator made, or have somebody ask for this who makes no tokens."
        )
    if by.name in approval.known_to:
        raise Forbidden(
            f"{by.name!r} made the token with which {approval.requested_by!r} asks for this, and knows it, too: let "
            f"another person answer, or let {approval.requested_by!r} claim it (chiffon tokens claim) and ask again."
        )


def check_open(approval: Approval, *, now: datetime) -> None:
    """Raise `ApprovalNotPossible` unless it still waits for answers."""
    if approval.state is not ApprovalState.WAITING:
        raise ApprovalNotPossible(
            f"The approval {approval.approval_id} does not wait any more: it is {approval.state}."
        )
    if approval.expires_at <= now:
        raise ApprovalNotPossible(f"The approval {approval.approval_id} waited for an answer until {_time(approval)}.")


def judge_use(approval: Approval | None, use: Use, *, now: datetime) -> str | None:
    """Say why an approval does not let a new task run; None when it does, or did so before for this very task."""
    if approval is None:
        return "there is no such approval"
    if approval.requester_id != use.by:
        return f"{approval.requested_by!r} asked for it, and nobody else may use it"
    if approval.digest != use.digest:
        return (
            f"it is for other content; what differs: {', '.join(_differing(approved_content(approval), use.content))}"
        )
    if differing := _differing(approval.terms, use.terms):
        return "it is for other terms: " + "; ".join(
            f"{name} is {_json(use.terms.get(name))}, and was approved as {_json(approval.terms.get(name))}"
            for name in differing
        )
    if approval.task_id == use.task_id:
        return None
    if approval.task_id is not None:
        return f"it is used already, by the task {approval.task_id}"
    if approval.state is not ApprovalState.APPROVED:
        return f"it is {approval.state}"
    if _has_lapsed(approval, now=now):
        return "it does not hold any more"
    return None


def approved_content(approval: Approval) -> dict[str, Any]:
    """Return what an approval is for, besides its terms."""
    return {
        "work_type": approval.work_type,
        "target": approval.target,
        "parameters": dict(approval.parameters),
        "hints": dict(approval.hints),
        "policy_version": approval.policy_version,
    }


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
    """Say why an attempt of a task must not begin; None when it may. `approval` is the one that the task names."""
    if work.work_digest is None and not work.policy_version:
        return None  # from before there were policies
    if (digest := digest_of(work)) is None or digest != work.work_digest:
        return "what is stored is not what was dispatched: its digest differs"
    if work.approval_id is None:
        return None
    if approval is None or (approval.digest, approval.task_id) != (digest, work.task_id):
        return "what is stored is not what was approved"
    terms = work.terms(
        concurrency_limit=approval.terms.get("concurrency_limit"),
        stop_after=approval.terms.get("stop_after_failures"),
    )
    if approved_digest(digest, terms) != approval.approved_digest:
        differing = ", ".join(_differing(approval.terms, terms))
        return f"it is stored with other terms than were approved; what differs: {differing}"
    if approval.state not in (ApprovalState.APPROVED, ApprovalState.USED):
        return f"its approval is {approval.state}"
    if _has_lapsed(approval, now=now):
        return "its approval does not hold any more"
    return None


def _has_lapsed(approval: Approval, *, now: datetime) -> bool:
    return approval.valid_until is None or approval.valid_until <= now


def _differing(approved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the names of the values that are not the same."""
    names = dict.fromkeys((*approved, *given))
    return [name for name in names if canonical_json(approved.get(name)) != canonical_json(given.get(name))]


def _json(value: Any) -> str:
    return canonical_json(value).decode()


def _time(approval: Approval) -> str:
    return approval.expires_at.isoformat(timespec="seconds")
