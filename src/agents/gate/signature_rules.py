"""Whether signed claims and a grant say the same: a pure decision."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from common.messages import GrantedTask
from common.signing.claims import GrantClaims, SignedTask, out_of_date, signed_values

# The claim is compared with that of the agent, and everything else as it is.
_COMPARED = tuple(name for name in SignedTask.model_fields if name != "claim_id")


@dataclass(frozen=True, slots=True)
class SignedGrants:
    """The signed claims of one message, and its tasks by their ids."""

    claims: GrantClaims
    tasks: Mapping[UUID, SignedTask]

    @classmethod
    def of(cls, claims: GrantClaims) -> "SignedGrants":
        return cls(claims, {task.task_id: task for task in claims.tasks})


def disagreement(
    signed: SignedGrants,
    grant: GrantedTask,
    *,
    credit: int | None,
    agent_id: UUID,
    claim_id: UUID,
    now: datetime,
    skew: timedelta,
) -> str | None:
    """Return why a grant may not be run although the claims are the orchestrator's; None when it may.

    `credit` is that of the message that brought it, `claim_id` the session or the claim that this agent asked with, and
    `skew` how far the clocks of two hosts may differ.
    """
    if signed.claims.aud != agent_id:
        return "it is signed for another agent"
    if (reason := out_of_date(signed.claims, now=now, skew=skew)) is not None:
        return reason
    if signed.claims.credit != credit:
        return "credit is not what was signed"
    task = signed.tasks.get(grant.work.task_id)
    if task is None:
        return "its signature is that of another task"
    if task.claim_id != claim_id:
        return "it answers another claim than the one that this agent made"
    try:
        shown = signed_values(grant)
    except (TypeError, ValueError):
        return "its content has no digest"
    for name in _COMPARED:
        if shown[name] != getattr(task, name):
            return f"{name} is not what was signed"
    return None
