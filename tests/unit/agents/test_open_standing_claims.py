"""An agent makes standing claims for what it has free and needs, and asks about each until it is answered."""

import math
from typing import Any
from uuid import UUID, uuid4

import pytest
from agents.open_standing_claims import (
    ASKED_AFTER,
    ASKED_AGAIN_AFTER,
    FORGOTTEN_AFTER,
    KEPT_FOR,
    PART,
    Answered,
    OpenStandingClaims,
)

from agents.settings import AgentSettings
from common.messages import STANDING_SECONDS
from orchestrator.settings import OrchestratorSettings

pytestmark = pytest.mark.path_internals


def make(standing: OpenStandingClaims, now: float, **changed: Any) -> list[UUID]:
    return standing.make(now, **{"most": 64, "slots": 256, "free": 256, "begun": 0, **changed})


def test_an_agent_that_has_done_nothing_lately_claims_one() -> None:
    standing = OpenStandingClaims()
    assert len(make(standing, 0.0)) == 1
    assert make(standing, 0.1) == [], "one stands"


def test_it_claims_twice_as_many_as_began_lately_and_one() -> None:
    standing = OpenStandingClaims()
    make(standing, 0.0)
    assert len(make(standing, 0.2, begun=3)) == 2 * 3 + 1 - 1
    assert len(make(standing, 5.0, begun=4)) == 1, "what began long ago does not count"


@pytest.mark.parametrize(
    ("limits", "claims"),
    [
        ({"most": 5}, 5),
        ({"most": 256}, 64),
        ({"most": 0}, 0),
        ({"slots": 40, "free": 40}, 10),
        ({"slots": 3, "free": 3}, 0),
        ({"slots": 4, "free": 3}, 1),
        ({"slots": 4, "free": 2}, 0),
    ],
)
def test_it_claims_for_a_part_of_its_slots_and_for_none_when_half_are_busy(limits: dict[str, int], claims: int) -> None:
    standing = OpenStandingClaims()
    standing.make(0.0, most=0, slots=256, free=256, begun=0)
    assert len(make(standing, 0.1, begun=1000, **limits)) == claims


def test_the_setting_of_the_orchestrator_bounds_no_agent_by_default() -> None:
    slots = AgentSettings.model_json_schema()["properties"]["slots"]["maximum"]
    assert OrchestratorSettings.model_fields["standing_claims"].default == slots // PART


def test_a_claim_that_counts_no_longer_is_made_up_for() -> None:
    standing = OpenStandingClaims()
    [first] = make(standing, 0.0)
    assert make(standing, STANDING_SECONDS - 0.01) == []
    [second] = make(standing, STANDING_SECONDS)
    assert first != second


def test_a_slot_is_kept_for_a_claim_until_it_is_answered_or_its_grant_would_be_here() -> None:
    standing = OpenStandingClaims()
    first, *others = make(standing, 0.0), *make(standing, 0.1, begun=1)
    assert standing.next_change() == KEPT_FOR
    assert standing.answered(first[0]) == Answered(0.0, has_slot=True)
    assert standing.lapse(KEPT_FOR) == 0
    assert standing.lapse(KEPT_FOR + 0.1) == len(others)
    assert standing.lapse(KEPT_FOR + 0.1) == 0
    assert standing.answered(others[0]) == Answered(0.1, has_slot=False)


def test_it_asks_about_a_claim_until_it_is_answered() -> None:
    standing = OpenStandingClaims()
    [claim] = make(standing, 0.0)
    standing.lapse(ASKED_AFTER)
    assert standing.next_change() == ASKED_AFTER
    assert standing.ask(ASKED_AFTER - 0.01) == []
    assert standing.ask(ASKED_AFTER) == [claim]
    assert standing.is_asking
    assert standing.ask(ASKED_AFTER + 0.01) == []
    assert standing.ask(ASKED_AFTER + ASKED_AGAIN_AFTER) == [claim]

    assert standing.answered(claim) == Answered(0.0, has_slot=False)
    assert not standing.is_asking
    assert standing.next_change() == math.inf
    assert standing.answered(claim) is None, "it is answered once"


def test_it_asks_about_claims_of_nearly_the_same_age_together() -> None:
    standing = OpenStandingClaims()
    claims = make(standing, 0.0) + make(standing, 0.6)
    [young] = make(standing, 1.5)
    assert standing.ask(ASKED_AFTER) == claims
    assert young not in claims


def test_a_claim_whose_grant_was_heard_of_is_not_asked_about() -> None:
    standing = OpenStandingClaims()
    [claim] = make(standing, 0.0)
    standing.answered(claim)
    assert standing.ask(100.0) == []


def test_who_leaves_asks_about_all_of_them_at_once() -> None:
    standing = OpenStandingClaims()
    claims = make(standing, 0.0) + make(standing, 0.6)
    standing.ask_all()
    assert standing.ask(0.7) == claims
    assert standing.ask(0.8) == []


def test_a_claim_that_nobody_answers_is_forgotten_when_no_lease_of_it_can_live() -> None:
    standing = OpenStandingClaims()
    make(standing, 0.0)
    standing.ask(ASKED_AFTER)
    assert standing.ask(FORGOTTEN_AFTER) == []
    assert not standing.is_asking


def test_the_claim_of_somebody_else_is_none_of_these() -> None:
    assert OpenStandingClaims().answered(uuid4()) is None
