"""What roles and scopes allow, whatever they are combined with."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidField
from common.rest.identities import Permission, PrincipalKind, Role
from orchestrator.identities.model import ANYBODY, Caller, Forbidden
from orchestrator.identities.permissions import PERMISSIONS, permissions_of
from orchestrator.identities.rates import Rates
from orchestrator.identities.rules import check_name, check_roles, name_from

ROLES = st.sets(st.sampled_from(Role))
SCOPES = st.none() | st.sets(st.sampled_from(Permission))


@given(ROLES, SCOPES)
def test_a_caller_may_do_what_some_role_allows_and_the_scopes_leave(
    roles: set[Role], scopes: set[Permission] | None
) -> None:
    allowed = permissions_of(roles, scopes)

    for permission in Permission:
        by_role = any(permission in PERMISSIONS[role] for role in roles)
        assert (permission in allowed) == (by_role and (scopes is None or permission in scopes))


@given(ROLES, SCOPES)
def test_only_an_approver_may_approve_and_only_an_agent_may_work(
    roles: set[Role], scopes: set[Permission] | None
) -> None:
    allowed = permissions_of(roles, scopes)

    assert Permission.APPROVE not in allowed or Role.APPROVER in roles
    assert Permission.WORK not in allowed or Role.AGENT in roles
    assert permissions_of({Role.AGENT}) == {Permission.WORK}


@given(st.sampled_from(PrincipalKind), ROLES)
def test_programs_do_not_approve_and_nobody_is_made_an_agent(kind: PrincipalKind, roles: set[Role]) -> None:
    fits = bool(roles) and kind is not PrincipalKind.AGENT and Role.AGENT not in roles
    fits = fits and (kind is PrincipalKind.PERSON or Role.APPROVER not in roles)
    if fits:
        check_roles(kind, roles)
    else:
        with pytest.raises(InvalidField):
            check_roles(kind, roles)


def test_an_agent_speaks_for_itself_only() -> None:
    agent_id = uuid4()
    agent = Caller(
        uuid4(), PrincipalKind.AGENT, "a", frozenset({Role.AGENT}), frozenset({Permission.WORK}), agent_id=agent_id
    )
    worker = Caller(uuid4(), PrincipalKind.SERVICE, "s", frozenset(), frozenset({Permission.WORK}))

    agent.require_agent(agent_id)
    ANYBODY.require_agent(agent_id)
    for other in (agent, worker):
        with pytest.raises(Forbidden):
            other.require_agent(uuid4())


@given(st.text())
def test_any_name_of_a_user_becomes_one_that_is_allowed(text: str) -> None:
    check_name(name_from(text))


@pytest.mark.parametrize(
    "name",
    ["", " ann", "ann\n", "a/b", "Orchestrator", "anybody", "x" * 101, "-ann", "0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60"],
)
def test_a_name_that_would_mislead_is_refused(name: str) -> None:
    with pytest.raises(InvalidField):
        check_name(name)


@given(st.lists(st.floats(min_value=0, max_value=5), max_size=60))
def test_nobody_gets_more_than_the_burst_and_what_time_brings(pauses: list[float]) -> None:
    rates, now, got = Rates(per_second=2, burst=5), 0.0, 0
    for pause in pauses:
        now += pause
        got += rates.take("one", now=now) == 0
        assert rates.take("other", now=now * 0) >= 0

    assert got <= 5 + 2 * now + 1e-6
