"""Approvals as the REST API answers them."""

from typing import Any

from common.rest import approvals as rest
from common.visible import visible_json
from orchestrator.approvals.model import Approval, Discussed
from orchestrator.approvals.rules import approved_content


def approval(found: Approval) -> rest.Approval:
    """Return an approval without the work."""
    return rest.Approval(**_fields(found))


def detail(found: Discussed) -> rest.ApprovalDetail:
    """Return an approval with the work, and with what people said."""
    asked = found.approval
    work = {**approved_content(asked), "terms": dict(asked.terms)}
    return rest.ApprovalDetail(
        **_fields(asked),
        work=work,
        shown=visible_json(work),
        votes=[rest.Vote.model_validate(vote) for vote in found.votes],
        comments=[rest.Comment.model_validate(comment) for comment in found.comments],
    )


def _fields(found: Approval) -> dict[str, Any]:
    same = {name: getattr(found, name) for name in rest.Approval.model_fields}
    digests = {"digest": found.digest.hex(), "approved_digest": found.approved_digest.hex()}
    return {**same, **digests, "roles": list(found.roles)}
