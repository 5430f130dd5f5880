"""Whether signed claims and a grant say the same: a pure decision."""

from datetime import datetime, timedelta
from uuid import UUID

from common.messages import GrantedTask
from common.signing.claims import GrantClaims, SignedTask, out_of_date, signed_values

# A grant over HTTP has less of it than was signed: time has passed since.
MAY_BE_LESS = "lease_seconds"
# All other fields are compared as they are, but the claim, which is that of the agent.
_COMPARED = tuple(name for name in SignedTask.model_fields if name not in ("claim_id", MAY_BE_LESS))


def disagreement(
    claims: GrantClaims, grant: GrantedTask, *, agent_id: UUID, claim_id: UUID, now: datetime, skew: timedelta
) -> str | None:
    """Return why a grant may not be run although the claims are the orchestrator's; None when it may.

    `claim_id` is that of the claim which this agent made; `skew` is how far the clocks of two hosts may differ.
    """
    if claims.aud != agent_id:
        return "it is signed for another agent"
    if (reason := out_of_date(claims, now=now, skew=skew)) is not None:
        return reason
    signed = next((one for one in claims.tasks if one.task_id == grant.work.task_id), None)
    if signed is None:
        return "its signature is that of another task"
    if signed.claim_id != claim_id:
        return "it answers another claim than the one that this agent made"
    try:
        shown = signed_values(grant)
    except (TypeError, ValueError):
        return "its content has no digest"
    if not 0 < grant.lease_seconds <= signed.lease_seconds:
        return "lease_seconds is not what was signed"
    for name in _COMPARED:
        if shown[name] != getattr(signed, name):
            return f"{name} is not what was signed"
    return None
