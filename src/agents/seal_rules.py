"""Whether a signed statement and a grant say the same: a pure decision."""

from datetime import datetime, timedelta
from uuid import UUID

from common.messages import GrantedTask
from common.signing.statements import GrantStatement, SealedTask, sealed_values

# What a grant over HTTP has less of than was signed: the time that passed since.
MAY_BE_LESS = "lease_seconds"
# What is not the claim, which is that of the agent, is compared as it is.
_COMPARED = tuple(name for name in SealedTask.model_fields if name not in ("claim_id", MAY_BE_LESS))


def disagreement(
    statement: GrantStatement, grant: GrantedTask, *, agent_id: UUID, claim_id: UUID, now: datetime, skew: timedelta
) -> str | None:
    """Return why a grant may not be run although the statement is the orchestrator's; None when it may.

    `claim_id` is that of the claim which this agent made; `skew` is how far the clocks of two hosts may differ.
    """
    at, tolerance = now.timestamp(), skew.total_seconds()
    if statement.aud != agent_id:
        return "it is signed for another agent"
    if at > statement.exp + tolerance:
        return f"its signature expired {at - statement.exp:.0f} s ago by this host's clock"
    if at < statement.iat - tolerance:
        return f"it was signed {statement.iat - at:.0f} s in the future by this host's clock"
    sealed = next((one for one in statement.tasks if one.task_id == grant.work.task_id), None)
    if sealed is None:
        return "its signature is that of another task"
    if sealed.claim_id != claim_id:
        return "it answers another claim than the one that this agent made"
    try:
        shown = sealed_values(grant)
    except (TypeError, ValueError):
        return "its content has no digest"
    if not 0 < grant.lease_seconds <= sealed.lease_seconds:
        return "lease_seconds is not what was signed"
    for name in _COMPARED:
        if shown[name] != getattr(sealed, name):
            return f"{name} is not what was signed"
    return None
