"""When people are asked about a repair, and how that stands."""

import pytest

from common.rest.approvals import ApprovalState
from common.rest.repairs import RepairApprovalStatus
from common.services import Requirement, parse_services
from orchestrator.repairs.gate import demand_at, status_of

TABLE = '[service.web]\nproject = "p"\nworkspace = "/w"\nallowlist = ["**"]\n'


@pytest.mark.parametrize("requirement", Requirement)
@pytest.mark.parametrize("when", [Requirement.PRE_RUN, Requirement.PRE_VERIFY])
def test_people_are_asked_where_the_gate_says_so_and_nowhere_else(requirement: Requirement, when: Requirement) -> None:
    gate = f'approval = {{ requirement = "{requirement}" }}'
    service = parse_services(TABLE + gate, source="services.toml")["web"]

    assert (demand_at(service, when) is not None) == (requirement is when)


def test_without_a_gate_nobody_is_asked() -> None:
    service = parse_services(TABLE, source="services.toml")["web"]

    assert demand_at(service, Requirement.PRE_RUN) is None


@pytest.mark.parametrize(
    ("requirement", "status"),
    [
        (Requirement.NONE, RepairApprovalStatus.NOT_REQUIRED),
        (Requirement.PRE_RUN, RepairApprovalStatus.AWAITING),
        (Requirement.PRE_VERIFY, RepairApprovalStatus.AWAITING),
    ],
)
def test_as_long_as_nobody_was_asked_it_stands_as_the_gate_says(
    requirement: Requirement, status: RepairApprovalStatus
) -> None:
    assert status_of(requirement, [], is_open=True) is status


@pytest.mark.parametrize("requirement", Requirement)
def test_who_ends_before_anybody_was_asked_waits_for_nobody(requirement: Requirement) -> None:
    assert status_of(requirement, [], is_open=False) is RepairApprovalStatus.NOT_REQUIRED


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (ApprovalState.WAITING, RepairApprovalStatus.AWAITING),
        (ApprovalState.APPROVED, RepairApprovalStatus.GRANTED),
        (ApprovalState.USED, RepairApprovalStatus.GRANTED),
        (ApprovalState.REJECTED, RepairApprovalStatus.EXPIRED),
        (ApprovalState.EXPIRED, RepairApprovalStatus.EXPIRED),
        (ApprovalState.CANCELLED, RepairApprovalStatus.EXPIRED),
    ],
)
@pytest.mark.parametrize("requirement", Requirement)
def test_the_last_question_says_how_it_stands_whoever_asked_it(
    requirement: Requirement, state: ApprovalState, status: RepairApprovalStatus
) -> None:
    for is_open in (True, False):
        assert status_of(requirement, [ApprovalState.EXPIRED, state], is_open=is_open) is status
