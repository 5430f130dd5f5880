"""What roles and scopes allow, whatever they are combined with."""

from collections.abc import Collection, Hashable
from itertools import chain, combinations
from typing import TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidField
from common.rest.identities import Permission, PrincipalKind, Role
from orchestrator.identities import rates as rates_module
from orchestrator.identities.model import ANYBODY, Caller, Forbidden
from orchestrator.identities.permissions import PERMISSIONS, permissions_of
from orchestrator.identities.rates import Rates
from orchestrator.identities.rules import check_name, check_roles, name_from, pinned
from tests.permissions import ALLOWED

Item = TypeVar("Item")


def subsets(items: Collection[Item]) -> list[frozenset[Item]]:
    return [frozenset(some) for some in chain(*(combinations(items, size) for size in range(len(items) + 1)))]


ROLES = subsets(list(Role))
SCOPES = [None, *subsets(list(Permission))]


def test_each_role_allows_what_is_written_down_and_no_more() -> None:
    assert dict(PERMISSIONS) == dict(ALLOWED)
    assert set(ALLOWED) == set(Role)


def test_a_caller_may_do_what_some_role_allows_and_the_scopes_leave() -> None:
    for roles in ROLES:
        by_role = frozenset[Permission]().union(*(ALLOWED[role] for role in roles))
        for scopes in SCOPES:
            assert permissions_of(roles, scopes) == {one for one in by_role if scopes is None or one in scopes}


def test_only_an_approver_may_approve_and_only_an_agent_may_work() -> None:
    for roles in ROLES:
        allowed = permissions_of(roles)

        assert Permission.APPROVE not in allowed or Role.APPROVER in roles
        assert Permission.WORK not in allowed or Role.AGENT in roles
    assert permissions_of({Role.AGENT}) == {Permission.WORK}


@pytest.mark.parametrize("kind", PrincipalKind)
def test_programs_do_not_approve_and_nobody_is_made_an_agent(kind: PrincipalKind) -> None:
    for roles in ROLES:
        fits = bool(roles) and kind is not PrincipalKind.AGENT and Role.AGENT not in roles
        fits = fits and (kind is PrincipalKind.PERSON or Role.APPROVER not in roles)
        if fits:
            check_roles(kind, roles)
        else:
            with pytest.raises(InvalidField):
                check_roles(kind, roles)


def test_a_caller_may_do_only_what_its_permissions_name() -> None:
    for allowed in subsets(list(Permission)):
        caller = Caller(uuid4(), PrincipalKind.PERSON, "p", frozenset(), allowed)
        for permission in Permission:
            if permission in allowed:
                caller.require(permission)
            else:
                with pytest.raises(Forbidden, match=permission.value):
                    caller.require(permission)


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


@pytest.mark.parametrize("value", [True, 5, {"db": True}, None])
@pytest.mark.parametrize("name", ["enforces", "secrets"])
def test_a_label_that_permits_is_pinned_as_a_list_only(name: str, value: object) -> None:
    assert pinned({name: "db", "zone": "eu"}) == {name: ["db"], "zone": "eu"}
    with pytest.raises(InvalidField, match=name):
        pinned({name: value})


@given(st.lists(st.floats(min_value=0, max_value=5), max_size=60))
def test_nobody_gets_more_than_the_burst_and_what_time_brings(pauses: list[float]) -> None:
    rates, now, got = Rates(per_second=2, burst=5), 0.0, 0
    for pause in pauses:
        now += pause
        got += rates.take("one", now=now) == 0
        assert rates.take("other", now=now * 0) >= 0

    assert got <= 5 + 2 * now + 1e-6


def passed(rates: Rates, key: Hashable, *, now: float) -> int:
    """Return how often somebody may do something at one moment."""
    count = 0
    while rates.take(key, now=now) == 0:
        count += 1
        assert count < 100, "there is no end of it"
    return count


def test_a_burst_is_followed_by_what_time_brings_and_a_long_pause_saves_up_one_burst() -> None:
    rates = Rates(per_second=2, burst=5)

    assert [passed(rates, "one", now=now) for now in (0, 0, 1, 3600)] == [5, 0, 2, 5]
    assert passed(rates, "other", now=3600) == 5


def test_so_many_are_counted_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "MOST_KEYS", 3)
    rates = Rates(per_second=1, burst=1)
    for number in range(3):
        assert passed(rates, UUID(int=number), now=0) == 1
    assert passed(rates, UUID(int=0), now=0) == 0

    assert passed(rates, UUID(int=3), now=0) == 1

    # The one that was not seen for longest is forgotten, and begins anew.
    assert [passed(rates, UUID(int=number), now=0) for number in (0, 3, 1)] == [0, 0, 1]
