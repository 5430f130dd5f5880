"""Who may approve, and what an approval is good for: every condition alone, and combinations of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.policy.model import Effect
from common.rest.approvals import ApprovalState
from common.rest.identities import PrincipalKind, Role
from orchestrator.approvals.model import Approval, Terms, Vote
from orchestrator.approvals.rules import (
    ApprovalNotPossible,
    Counts,
    Repeats,
    Use,
    check_open,
    judge_use,
    judge_vote,
    withhold,
)
from orchestrator.identities.model import ANYBODY, Caller, Forbidden, Provenance
from orchestrator.identities.permissions import permissions_of

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
PEOPLE = [UUID(int=number) for number in range(1, 5)]
TASK, APPROVAL = UUID(int=9), UUID(int=8)
MOMENT = timedelta(microseconds=1)

# By hand, as in `tests.unit.common.test_canonical`: what an approval is for, its terms, and the digests.
WORK = b'{"hints":{},"parameters":{"message":"hello"},"policy_version":"3-abc","target":"infra","work_type":"echo"}'
WORK_DIGEST = hashlib.sha256(WORK).digest()
TERMS = b'{"concurrency_limit":null,"max_attempts":1,"stop_after_failures":null}'
APPROVED_DIGEST = hashlib.sha256(b'{"terms":%s,"work":"%s"}' % (TERMS, WORK_DIGEST.hex().encode())).digest()


@dataclass(frozen=True)
class Stored:
    """The work of `WORK` and `TERMS` as a row of the ledger."""

    task_id: UUID = TASK
    work_type: str = "echo"
    agent_type: str = "infra"
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"message": "hello"})
    hints: Mapping[str, Any] = field(default_factory=dict)
    policy_version: str = "3-abc"
    work_digest: bytes | None = WORK_DIGEST
    approval_id: UUID | None = APPROVAL
    max_attempts: int = 1

    def terms(self, *, concurrency_limit: int | None, stop_after: int | None) -> Terms:
        return {
            "max_attempts": self.max_attempts,
            "concurrency_limit": concurrency_limit,
            "stop_after_failures": stop_after,
        }


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


def approved(**values: Any) -> Approval:
    """Make an approval of `WORK` on `TERMS` that holds a moment longer."""
    given: dict[str, Any] = {
        "state": ApprovalState.APPROVED,
        "digest": WORK_DIGEST,
        "approved_digest": APPROVED_DIGEST,
        "terms": {"max_attempts": 1, "concurrency_limit": None, "stop_after_failures": None},
        "valid_until": NOW + MOMENT,
    }
    return make_approval(**{**given, **values})


def used_by(**values: Any) -> Use:
    """Make a new task of the one who asked that uses such an approval."""
    content = {"work_type": "echo", "target": "infra", "parameters": {"message": "hello"}, "policy_version": "3-abc"}
    given: dict[str, Any] = {
        "approval_id": APPROVAL,
        "task_id": TASK,
        "trace_id": UUID(int=10),
        "digest": WORK_DIGEST,
        "content": {**content, "hints": {}},
        "terms": {"max_attempts": 1, "concurrency_limit": None, "stop_after_failures": None},
        "by": PEOPLE[0],
    }
    return Use(**{**given, **values})


VOTER = Caller(
    PEOPLE[2],
    PrincipalKind.PERSON,
    "bob",
    frozenset({Role.APPROVER}),
    frozenset(),
    token=Provenance("root", frozenset({"root"}), NOW),
)

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


@pytest.mark.parametrize("yes", [True, False], ids=["yes", "no"])
@pytest.mark.parametrize(
    ("voter", "reason"),
    [
        (replace(VOTER, kind=PrincipalKind.SERVICE), "is no person"),
        (replace(VOTER, kind=PrincipalKind.AGENT), "is no person"),
        (replace(VOTER, principal_id=PEOPLE[0]), "of their own"),
        (replace(VOTER, roles=frozenset({Role.ADMIN, Role.OPERATOR})), "none of the roles"),
        (replace(VOTER, token=None), "has none"),
        (replace(VOTER, token=Provenance("root", frozenset({"root"}), None)), "claim it first"),
        (replace(VOTER, token=Provenance("root", frozenset({"root", "ann"}), NOW)), "'ann', who asks for this, made"),
        (replace(VOTER, name="carl"), "knows it, too: let another person answer"),
    ],
    ids=["service", "agent", "own request", "other role", "no token", "not claimed", "made by the asker", "knows"],
)
def test_each_condition_on_who_answers_counts_by_itself(voter: Caller, reason: str, yes: bool) -> None:
    approval = make_approval(known_to=["carl"])

    assert isinstance(judge_vote(approval, [], VOTER, yes=yes, now=NOW), Counts)
    with pytest.raises(Forbidden, match=reason):
        judge_vote(approval, [], voter, yes=yes, now=NOW)


def test_a_person_counts_once_whatever_the_token_and_does_not_change_the_answer() -> None:
    approval, with_another_token = make_approval(approvers=2), replace(VOTER, token_id=UUID(int=12))
    votes = [Vote(VOTER.principal_id, VOTER.name, yes=True, comment="", at=NOW, token_id=UUID(int=11))]

    assert judge_vote(approval, votes, with_another_token, yes=True, now=NOW) == Repeats()
    with pytest.raises(ApprovalNotPossible, match="answered this already, with yes"):
        judge_vote(approval, votes, with_another_token, yes=False, now=NOW)


def test_one_no_rejects_whatever_others_said() -> None:
    votes = [Vote(PEOPLE[3], "dora", yes=True, comment="", at=NOW)]

    verdict = judge_vote(make_approval(approvers=2), votes, VOTER, yes=False, now=NOW)

    assert verdict == Counts(ApprovalState.REJECTED)


def test_an_answer_counts_until_the_moment_at_which_its_time_is_over() -> None:
    check_open(make_approval(expires_at=NOW + MOMENT), now=NOW)
    for over in (NOW, NOW - MOMENT):
        with pytest.raises(ApprovalNotPossible, match="waited for an answer until"):
            check_open(make_approval(expires_at=over), now=NOW)


@pytest.mark.parametrize(
    ("approval", "use", "reason"),
    [
        (None, used_by(), "there is no such approval"),
        (approved(), used_by(by=PEOPLE[1]), "nobody else may use it"),
        (approved(), used_by(digest=b"o" * 32), "for other content"),
        (approved(), used_by(terms={"max_attempts": 2}), "max_attempts is 2, and was approved as 1"),
        (approved(task_id=UUID(int=7)), used_by(), "used already, by the task 00000000-0000-0000-0000-000000000007"),
        *(
            (approved(state=state), used_by(), f"it is {state}")
            for state in ApprovalState
            if state is not ApprovalState.APPROVED
        ),
        (approved(valid_until=NOW), used_by(), "does not hold any more"),
        (approved(valid_until=None), used_by(), "does not hold any more"),
    ],
)
def test_each_condition_on_the_use_of_an_approval_counts_by_itself(
    approval: Approval | None, use: Use, reason: str
) -> None:
    assert judge_use(approved(), used_by(), now=NOW) is None
    assert reason in str(judge_use(approval, use, now=NOW))


@pytest.mark.parametrize(
    ("work", "approval", "reason"),
    [
        (Stored(parameters={"message": "rm"}), approved(task_id=TASK), "not what was dispatched"),
        (Stored(work_digest=None), approved(task_id=TASK), "not what was dispatched"),
        (Stored(), None, "not what was approved"),
        (Stored(), approved(task_id=TASK, digest=b"o" * 32), "not what was approved"),
        (Stored(), approved(task_id=UUID(int=7)), "not what was approved"),
        (Stored(), approved(task_id=None), "not what was approved"),
        (Stored(max_attempts=2), approved(task_id=TASK), "other terms than were approved; what differs: max_attempts"),
        (Stored(), approved(task_id=TASK, approved_digest=b"o" * 32), "other terms than were approved"),
        *(
            (Stored(), approved(task_id=TASK, state=state), f"its approval is {state}")
            for state in ApprovalState
            if state not in (ApprovalState.APPROVED, ApprovalState.USED)
        ),
        (Stored(), approved(task_id=TASK, valid_until=NOW), "does not hold any more"),
        (Stored(), approved(task_id=TASK, valid_until=None), "does not hold any more"),
    ],
)
def test_each_condition_on_what_may_begin_counts_by_itself(
    work: Stored, approval: Approval | None, reason: str
) -> None:
    for state in (ApprovalState.APPROVED, ApprovalState.USED):
        assert withhold(Stored(), approved(task_id=TASK, state=state), now=NOW) is None
    assert reason in str(withhold(work, approval, now=NOW))


def test_where_nobody_is_asked_who_they_are_nobody_approves() -> None:
    with pytest.raises(Forbidden, match="only people"):
        judge_vote(make_approval(requester_id=PEOPLE[1]), [], ANYBODY, yes=True, now=NOW)


@pytest.mark.parametrize("state", [state for state in ApprovalState if state is not ApprovalState.WAITING])
def test_what_is_decided_is_decided(state: ApprovalState) -> None:
    token = Provenance("root", frozenset({"root"}), NOW)
    caller = Caller(PEOPLE[2], PrincipalKind.PERSON, "bob", frozenset({Role.APPROVER}), frozenset(), token=token)

    with pytest.raises(ApprovalNotPossible, match=state):
        judge_vote(make_approval(state=state), [], caller, yes=True, now=NOW)
