"""Who may approve: every combination of roles, kinds, owners and tokens."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.policy.model import Effect
from common.rest.approvals import ApprovalState
from common.rest.identities import PrincipalKind, Role
from orchestrator.approvals.model import Approval, Vote
from orchestrator.approvals.rules import ApprovalNotPossible, Counts, Repeats, judge_vote
from orchestrator.identities.model import ANYBODY, Caller, Forbidden, Provenance
from orchestrator.identities.permissions import permissions_of

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
PEOPLE = [UUID(int=number) for number in range(1, 5)]


def make_approval(**values: Any) -> Approval:
    approval = Approval(
        approval_id=uuid4(),
        state=ApprovalState.WAITING,
        digest=b"d" * 32,
        approved_digest=b"a" * 32,
        work_type="echo",
        target="infra",
        parameters={},
        hints={},
        terms={"max_attempts": 1},
        effect=Effect.WRITE,
        policy_version="1-a",
        rule="risky",
        approvers=1,
        roles=["approver"],
        valid_for=timedelta(minutes=5),
        requester_id=PEOPLE[0],
        requested_by="ann",
        known_to=(),
        note="",
        task_id=None,
        trace_id=None,
        created_at=NOW,
        expires_at=NOW + timedelta(hours=1),
        decided_at=None,
        valid_until=None,
        reason=None,
    )
    return replace(approval, **values)


callers = st.builds(
    lambda principal, kind, roles, token_id, token: Caller(
        principal, kind, f"p{principal.int}", frozenset(roles), permissions_of(roles), token_id=token_id, token=token
    ),
    st.sampled_from(PEOPLE),
    st.sampled_from(PrincipalKind),
    st.sets(st.sampled_from(Role)),
    st.uuids(),
    st.builds(
        lambda makers, claimed_at: Provenance(makers[0], frozenset(makers), claimed_at),
        st.lists(st.sampled_from(["ann", "root"]), min_size=1),
        st.sampled_from([None, NOW]),
    ),
)
approvals = st.builds(
    lambda requester, roles, approvers, known_to: make_approval(
        requester_id=requester, roles=sorted(roles), approvers=approvers, known_to=known_to
    ),
    st.sampled_from(PEOPLE),
    st.sets(st.sampled_from(Role), min_size=1),
    st.integers(1, 3),
    st.lists(st.sampled_from(["p1", "p2", "p3", "p4"]), max_size=2),
)


@given(approvals, callers, st.booleans())
def test_a_vote_counts_exactly_for_another_person_of_a_role_that_counts(
    approval: Approval, caller: Caller, yes: bool
) -> None:
    may = (
        caller.kind is PrincipalKind.PERSON
        and caller.principal_id != approval.requester_id
        and bool(caller.roles & set(approval.roles))
        and caller.token is not None
        and caller.token.claimed_at is not None
        and "ann" not in caller.token.makers
        and caller.name not in approval.known_to
    )
    if not may:
        with pytest.raises(Forbidden):
            judge_vote(approval, [], caller, yes=yes, now=NOW)
        return
    verdict = judge_vote(approval, [], caller, yes=yes, now=NOW)
    if not yes:
        assert verdict == Counts(ApprovalState.REJECTED)
    else:
        assert verdict == Counts(ApprovalState.APPROVED if approval.approvers == 1 else ApprovalState.WAITING)


@given(approvals, st.lists(callers, max_size=12))
def test_it_is_approved_when_so_many_people_said_yes_and_never_before(approval: Approval, voters: list[Caller]) -> None:
    votes: list[Vote] = []
    state = ApprovalState.WAITING
    for voter in voters:
        try:
            verdict = judge_vote(replace(approval, state=state), votes, voter, yes=True, now=NOW)
        except (Forbidden, ApprovalNotPossible):
            continue
        if isinstance(verdict, Repeats):
            assert voter.principal_id in {vote.principal_id for vote in votes}
            continue
        votes.append(Vote(voter.principal_id, voter.name, yes=True, comment="", at=NOW))
        state = verdict.state
    people = {vote.principal_id for vote in votes}
    assert len(people) == len(votes) <= approval.approvers
    assert approval.requester_id not in people
    assert (state is ApprovalState.APPROVED) == (len(people) == approval.approvers)


def test_where_nobody_is_asked_who_they_are_nobody_approves() -> None:
    with pytest.raises(Forbidden, match="only people"):
        judge_vote(make_approval(requester_id=PEOPLE[1]), [], ANYBODY, yes=True, now=NOW)


@pytest.mark.parametrize("state", [state for state in ApprovalState if state is not ApprovalState.WAITING])
def test_what_is_decided_is_decided(state: ApprovalState) -> None:
    token = Provenance("root", frozenset({"root"}), NOW)
    caller = Caller(PEOPLE[2], PrincipalKind.PERSON, "bob", frozenset({Role.APPROVER}), frozenset(), token=token)

    with pytest.raises(ApprovalNotPossible, match=state):
        judge_vote(make_approval(state=state), [], caller, yes=True, now=NOW)
