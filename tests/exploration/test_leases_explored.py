"""Every promise of the leases holds in every state within the bounds, and each safeguard is needed for that.

`CHIFFON_EXPLORE=deep` explores larger scopes as well, which takes some minutes.
"""

import os
from dataclasses import dataclass, replace

import pytest

from tests.exploration.ablations import ABLATED
from tests.exploration.explore import explore, story
from tests.exploration.scope import Safeguard, Scope

DEEP = os.environ.get("CHIFFON_EXPLORE") == "deep"


@dataclass(frozen=True)
class Bound:
    """A scope, and how many states it must have at least: fewer would mean that the model has lost something."""

    scope: Scope
    states: int


BOUNDS = {
    "one task, everything that an orchestrator may have in hand": Bound(Scope(most=(1,), agents=1, leases=1), 50_000),
    "a task that is leased again": Bound(Scope(most=(1,), renewals=0, crashes=0, cancels=False, hands=False), 35_000),
    "two attempts": Bound(Scope(most=(2,), agents=1, renewals=0, crashes=0, hands=False), 35_000),
    "two tasks": Bound(
        Scope(most=(1, 1), agents=1, leases=1, renewals=0, crashes=0, cancels=False, hands=False), 35_000
    ),
}
LARGE = {
    "a task that is leased again and may be cancelled": Bound(
        Scope(most=(1,), renewals=0, crashes=0, hands=False), 50_000
    ),
    "two agents that crash": Bound(Scope(most=(1,), leases=1, renewals=0, hands=False), 35_000),
    "two tasks that may be cancelled": Bound(Scope(agents=1, leases=1, renewals=0, crashes=0, hands=False), 200_000),
    "two agents, everything that an orchestrator may have in hand": Bound(
        Scope(most=(1,), leases=1, renewals=0), 400_000
    ),
    "two attempts of an agent that crashes": Bound(Scope(most=(2,), agents=1, hands=False), 150_000),
}
EXPLORED = {**BOUNDS, **LARGE} if DEEP else BOUNDS
AT_MOST = 20_000_000

EVENTS = {"hear", "give", "arrive", "complete", "fail", "result", "settle", "reap", "cancel", "crash"}


@pytest.mark.timeout(7200 if DEEP else 120)
@pytest.mark.parametrize("bound", EXPLORED.values(), ids=EXPLORED)
def test_every_promise_holds_whatever_is_lost_doubled_reordered_late_or_crashes(bound: Bound) -> None:
    found = explore(bound.scope, at_most=AT_MOST)

    print(f"explored {found.states:,} states and {found.transitions:,} transitions, {found.depth} steps deep")
    assert found.violation is None, story(found.violation)
    assert found.states > bound.states
    assert set(found.actions) | {"crash", "cancel"} >= EVENTS


# Without a message that matters to nobody being dropped: an ablated rule may care for it.
ONE = Scope(most=(1,), renewals=0, crashes=0, hands=False, forgets=False)
NEEDED_BY = {
    "a result needs the attempt of the live lease": {"I4", "I5"},
    "a result counts once": {"I5", "I7"},
    "a result leaves a final task alone": {"I5", "I7", "I12"},
    "final is final": {"I7"},
    "attempts are limited": {"I6"},
}


@pytest.mark.parametrize("safeguard", ABLATED)
def test_without_a_safeguard_of_the_rules_a_promise_is_broken(safeguard: str) -> None:
    found = explore(replace(ONE, rules=ABLATED[safeguard]), at_most=AT_MOST)

    assert found.violation is not None
    print(story(found.violation))
    assert found.broken == NEEDED_BY[safeguard]


KEPT_BY = {
    Safeguard.SELF_FENCING: {"I8"},
    Safeguard.LEASE_FROM_ASKING: {"I8"},
    Safeguard.EXPIRED_GRANT: {"I8"},
    Safeguard.GRANT_DEDUPE: {"I6", "I8", "credit"},
    Safeguard.SESSION: {"I8", "credit"},
    Safeguard.JOURNAL: {"I6"},
    Safeguard.GUARDIAN: {"I8"},
    Safeguard.SPOOL: {"I1"},
    Safeguard.SPOOL_UNTIL_STORED: {"I1"},
    Safeguard.ROW_LOCK: {"I4", "I7", "I12"},
    Safeguard.ONLY_WHAT_WAITS: {"I7", "I12"},
    Safeguard.CREDIT: {"credit"},
    Safeguard.NEW_SESSION: {"credit"},
    Safeguard.REGRANT: {"I3"},
    Safeguard.LOST_ROOM: {"I9"},
    Safeguard.LOST_ONCE: {"credit"},
}


@pytest.mark.parametrize("safeguard", Safeguard)
def test_without_a_safeguard_of_agents_or_orchestrators_a_promise_is_broken(safeguard: Safeguard) -> None:
    scope = replace(ONE, crashes=1, without=frozenset({safeguard}))
    if safeguard is Safeguard.CREDIT:
        scope = replace(scope, most=(1, 1))
    elif safeguard is Safeguard.NEW_SESSION:
        scope = replace(scope, agents=1, leases=1)
    elif safeguard is Safeguard.LOST_ROOM:  # a grant is lost between the commit and the publishing
        scope = replace(scope, agents=1, leases=1, hands=True, forgets=True)

    found = explore(scope, at_most=AT_MOST)

    assert found.violation is not None
    print(story(found.violation))
    assert found.broken == KEPT_BY[safeguard]


def test_dropping_messages_that_matter_to_nobody_hides_nothing() -> None:
    scope = replace(ONE, agents=1, leases=1, crashes=1)

    everything = explore(scope, at_most=AT_MOST)
    relevant = explore(replace(scope, forgets=True), at_most=AT_MOST)

    assert everything.violation is None
    assert relevant.violation is None
    assert relevant.states < everything.states
    assert set(relevant.actions) == set(everything.actions)


def test_a_counterexample_is_the_shortest_and_can_be_read() -> None:
    found = explore(replace(ONE, without=frozenset({Safeguard.SELF_FENCING})), at_most=AT_MOST)

    assert found.violation is not None
    text = story(found.violation)
    assert "I8: work of a lease has stopped before the lease ends" in text
    assert [action.name for action, _ in found.violation.trace if action is not None] == [
        "hear",
        "give",
        "arrive",
        "tick",
        "tick",
    ]
