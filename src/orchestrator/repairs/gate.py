"""When people are asked about a repair, and how that stands: pure decisions."""

from collections.abc import Sequence

from common.policy.model import ApprovalDemand
from common.rest.approvals import ApprovalState
from common.rest.repairs import RepairApprovalStatus
from common.services import Requirement, Service


def demand_at(service: Service, when: Requirement) -> ApprovalDemand | None:
    """Return what the service's gate asks of people at a point of a repair; None when it asks nothing there."""
    gate = service.approval
    return gate.demand if gate is not None and gate.requirement is when else None


def status_of(requirement: Requirement, asked: Sequence[ApprovalState], *, is_open: bool) -> RepairApprovalStatus:
    """Return how the asking stands. `asked` is how the approvals so far stand, the newest last, whoever asked them;
    `is_open`: the repair goes on, so that people may still be asked.
    """
    if not asked:
        will_be_asked = is_open and requirement is not Requirement.NONE
        return RepairApprovalStatus.AWAITING if will_be_asked else RepairApprovalStatus.NOT_REQUIRED
    match asked[-1]:
        case ApprovalState.WAITING:
            return RepairApprovalStatus.AWAITING
        case ApprovalState.APPROVED | ApprovalState.USED:
            return RepairApprovalStatus.GRANTED
        case _:
            return RepairApprovalStatus.EXPIRED
