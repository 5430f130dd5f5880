"""Why a task waits is decided from facts alone: exactly what is in the way, in one order."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.lifecycle import Status
from common.rest.why import BlockerKind
from orchestrator.registry.model import MayWork
from orchestrator.why.model import AgentFacts, Facts, LimitFacts, OrderFacts
from orchestrator.why.rules import explain
from tests.test_orchestrator_api import make_task

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SOON = NOW + timedelta(minutes=5)
AGO = NOW - timedelta(minutes=5)
ONE, TWO = UUID(int=1), UUID(int=2)


def pending(**values: Any) -> Any:
    waits = {"status": Status.PENDING, "attempt": 0, "agent_id": None, "finished_at": None}
    return make_task(**{**waits, **values})


def agent(number: int = 1, **values: Any) -> AgentFacts:
    given_: dict[str, Any] = {
        "agent_id": UUID(int=number),
        "name": f"host-{number}",
        "agent_type": "infra",
        "hostname": f"host-{number}",
        "online": True,
        "last_heartbeat_at": AGO,
        "slots": 2,
        "running": 0,
    }
    return AgentFacts(**{**given_, **values})


def facts(**values: Any) -> Facts:
    given_: dict[str, Any] = {"task": pending(), "now": NOW, "agents": [agent()], "ahead": 3}
    return Facts(**{**given_, **values})


def kinds(**values: Any) -> list[BlockerKind]:
    return [blocker.kind for blocker in explain(facts(**values)).blockers]


def only(kind: BlockerKind, **values: Any) -> Any:
    [found] = [blocker for blocker in explain(facts(**values)).blockers if blocker.kind is kind]
    return found


def test_agents_that_live_but_do_not_offer_the_work_are_named_with_what_they_offer() -> None:
    other = agent(1, work_types=("echo",))

    found = only(BlockerKind.NOT_OFFERED, agents=[other], task=pending(work_type="shell_script"))

    assert "offers 'shell_script': host-1" in found.message
    assert found.message.endswith("offers echo. The task is set aside until an agent offers it.")
    silent = agent(2)  # it has not said yet
    assert BlockerKind.NOT_OFFERED not in kinds(agents=[other, silent], task=pending(work_type="shell_script"))
    assert BlockerKind.NO_AGENT in kinds(agents=[agent(3, online=False)], task=pending(work_type="shell_script"))


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_a_task_that_has_ended_does_not_wait(status: Status) -> None:
    told = explain(facts(task=make_task(status=status, finished_at=AGO, error_message="exit status 3"), agents=[]))

    assert not told.waiting
    [entry] = told.blockers
    assert entry.message == f"It does not wait: it is {status} since 2026-11-22T09:55:00Z: exit status 3."


def test_a_task_that_runs_does_not_wait_and_names_its_agent() -> None:
    told = explain(facts(task=make_task(status=Status.RUNNING, agent_id=ONE, started_at=AGO), ahead=None))

    assert not told.waiting
    [entry] = told.blockers
    assert entry.message == f"It does not wait: host-1 ({ONE}) runs it since 2026-11-22T09:55:00Z."
    assert (entry.kind, entry.at) == (BlockerKind.RUNNING, AGO)


def test_a_task_among_free_slots_only_waits_for_those_before_it() -> None:
    told = explain(facts())

    assert told.waiting
    assert [(entry.kind, entry.message, entry.ahead) for entry in told.blockers] == [
        (BlockerKind.QUEUED, "It waits in the ledger; 3 tasks go before it.", 3)
    ]


def test_a_step_of_a_loop_that_pauses_says_until_when() -> None:
    found = explain(facts(task=pending(not_before=SOON))).blockers

    assert [(one.kind, one.message, one.at) for one in found] == [
        (BlockerKind.LOOP_PAUSE, "It begins at 2026-11-22T10:05:00Z at the earliest: its loop pauses.", SOON)
    ]
    assert kinds(task=pending(not_before=AGO)) == [BlockerKind.QUEUED]


@pytest.mark.parametrize(
    ("ahead", "message"),
    [
        (1, "It waits in the ledger; 1 task goes before it."),
        (0, "It waits in the ledger; it is the next of its queue."),
    ],
)
def test_it_says_how_many_go_before_it(ahead: int, message: str) -> None:
    assert only(BlockerKind.QUEUED, ahead=ahead).message == message


def test_an_agent_that_asks_for_nothing_is_named_while_no_other_has_room() -> None:
    starting, full = agent(1, asks_for=0), agent(2, running=2, asks_for=0)

    blocker = only(BlockerKind.AGENT_NOT_ASKING, agents=[starting, full])

    assert blocker.message.startswith(f"host-1 ({ONE}) takes no work just now")
    assert "host-2" in only(BlockerKind.SLOTS_BUSY, agents=[starting, full]).message
    assert "host-1" not in only(BlockerKind.SLOTS_BUSY, agents=[starting, full]).message
    assert kinds(agents=[starting, agent(3, asks_for=1)]) == [BlockerKind.QUEUED]
    assert kinds(agents=[starting, agent(3)]) == [BlockerKind.QUEUED]  # it claims over HTTP


def test_approval_comes_first() -> None:
    assert kinds(task=pending(status=Status.AWAITING_APPROVAL), ahead=None) == [BlockerKind.AWAITING_APPROVAL]


def test_it_names_the_first_of_those_before_it_in_the_order() -> None:
    task = pending(ordering_key="web-1", admitted=False)

    blocker = only(BlockerKind.ORDERING_KEY, task=task, ahead=None, order=OrderFacts(2, TWO, Status.RUNNING))

    assert blocker.message == (
        f"It waits behind 2 tasks of the ordering key 'web-1'; the first of them is {TWO}, which is running."
    )
    assert (blocker.key, blocker.ahead, blocker.task_ids) == ("web-1", 2, [TWO])


def test_a_cancelled_one_is_in_the_way_while_it_is_stopped() -> None:
    task = pending(ordering_key="web-1", admitted=False)

    blocker = only(BlockerKind.ORDERING_KEY, task=task, ahead=None, order=OrderFacts(1, TWO, Status.CANCELLED))

    assert blocker.message.endswith(f"is {TWO}, which is cancelled and being stopped.")


def test_it_names_who_uses_up_the_limit_of_its_key() -> None:
    task = pending(concurrency_key="pulls", admitted=False)

    blocker = only(BlockerKind.CONCURRENCY_KEY, task=task, ahead=None, limit=LimitFacts(2, [ONE, TWO], 1))

    assert blocker.message == (
        "At most 2 of the concurrency key 'pulls' may run: 2 run, stop or are on their way, "
        "and 1 of those that wait goes before it."
    )
    assert (blocker.limit, blocker.ahead, blocker.task_ids) == (2, 1, [ONE, TWO])


def test_a_limit_that_has_room_is_not_in_the_way() -> None:
    task = pending(concurrency_key="pulls", ordering_key="web-1", admitted=False)
    order, limit = OrderFacts(1, TWO, Status.RUNNING), LimitFacts(2, [ONE], 0)

    assert kinds(task=task, ahead=None, order=order, limit=limit) == [BlockerKind.ORDERING_KEY]


def test_a_retry_is_due_at_its_time_and_says_what_went_wrong() -> None:
    task = pending(attempt=1, max_attempts=3, error_message="agent lost", not_before=SOON)

    told = explain(facts(task=task, ahead=0))

    [entry] = told.blockers
    assert (entry.kind, entry.at) == (BlockerKind.RETRY_DUE, SOON)
    assert entry.message == "Start 2 of at most 3 is due at 2026-11-22T10:05:00Z, after: agent lost."


def test_a_broker_that_does_not_answer_is_in_the_way_and_explains_the_rest() -> None:
    assert kinds(broker_failure="refused", giving_failure="refused") == [BlockerKind.BROKER_DOWN, BlockerKind.QUEUED]
    assert kinds(giving_failure="refused") == [BlockerKind.LEASING_FAILING, BlockerKind.QUEUED]


def test_a_type_of_which_nobody_ever_registered_is_named() -> None:
    assert only(BlockerKind.NO_AGENT, agents=[]).message == "No agent of the type 'infra' has ever registered."


def test_without_an_agent_online_the_offline_ones_are_named_the_last_heard_first() -> None:
    gone = [agent(1, online=False, last_heartbeat_at=AGO), agent(2, online=False, last_heartbeat_at=NOW)]

    blocker = only(BlockerKind.NO_AGENT, agents=gone)

    assert blocker.message == (
        f"No agent of the type 'infra' is online: host-2 ({TWO}) was last heard of at 2026-11-22T10:00:00Z; "
        f"host-1 ({ONE}) was last heard of at 2026-11-22T09:55:00Z."
    )
    assert [(ref.agent_id, ref.since) for ref in blocker.agents] == [(TWO, NOW), (ONE, AGO)]


def test_all_slots_are_busy_only_when_every_one_is() -> None:
    full = agent(1, running=2)

    assert BlockerKind.SLOTS_BUSY not in kinds(agents=[full, agent(2, running=1)])
    blocker = only(BlockerKind.SLOTS_BUSY, agents=[full, agent(2, running=2), agent(3, online=False)])
    assert blocker.message == f"All 4 slots are taken: host-1 ({ONE}) runs 2 of 2; host-2 ({TWO}) runs 2 of 2."


def test_slots_are_not_in_the_way_of_a_task_that_waits_for_its_key() -> None:
    task, order = pending(ordering_key="o", admitted=False), OrderFacts(1, TWO, Status.RUNNING)

    assert kinds(task=task, ahead=None, order=order, agents=[agent(running=2)]) == [BlockerKind.ORDERING_KEY]


def test_agents_that_are_held_back_say_by_whom_until_when_and_why() -> None:
    held = [
        agent(1, may_work=MayWork.PAUSED, paused_until=SOON, paused_by="anna", pause_note="new disk"),
        agent(2, may_work=MayWork.DRAINING, draining=True, drained_by="ben", drain_note="leaves"),
        agent(3, may_work=MayWork.TRIPPED, tripped_until=SOON),
        agent(4, running=2),
    ]

    told = explain(facts(agents=held, ahead=None)).blockers

    assert [entry.message for entry in told[1:]] == [
        f"host-1 ({ONE}) is paused by anna until 2026-11-22T10:05:00Z (new disk).",
        f"host-2 ({TWO}) takes nothing new: it is drained by ben (leaves).",
        f"host-3 ({UUID(int=3)}) failed too often in a row and gets nothing until 2026-11-22T10:05:00Z.",
    ]
    assert told[0].kind is BlockerKind.SLOTS_BUSY
    assert (told[1].by, told[1].note, told[1].at) == ("anna", "new disk", SOON)


def test_agents_that_are_held_back_do_not_matter_while_another_has_room() -> None:
    assert kinds(agents=[agent(1, draining=True), agent(2)], ahead=None) == []


@pytest.mark.parametrize(("at", "says"), [(SOON, "If it still waits at"), (AGO, "is being cancelled")])
def test_the_limit_on_waiting_is_told(at: datetime, says: str) -> None:
    blocker = only(BlockerKind.EXPIRES, task=pending(expires_at=at))

    assert says in blocker.message
    assert blocker.at == at


moments = st.sampled_from([None, AGO, SOON])
agents = st.builds(
    agent,
    number=st.integers(1, 50),
    online=st.booleans(),
    running=st.integers(0, 3),
    draining=st.booleans(),
    paused_until=st.sampled_from([None, SOON]),
    tripped_until=st.sampled_from([None, SOON]),
)
everything = st.builds(
    Facts,
    task=st.builds(
        pending,
        attempt=st.integers(0, 2),
        not_before=moments,
        admitted=st.booleans(),
        ordering_key=st.sampled_from([None, "o"]),
        concurrency_key=st.sampled_from([None, "c"]),
        expires_at=moments,
    ),
    now=st.just(NOW),
    agents=st.lists(agents, max_size=40),
    ahead=st.none() | st.integers(0, 5),
    order=st.none() | st.builds(OrderFacts, st.integers(0, 3), st.just(TWO), st.just(Status.PENDING)),
    limit=st.none() | st.builds(LimitFacts, st.integers(1, 3), st.lists(st.just(TWO), max_size=4), st.integers(0, 3)),
    broker_failure=st.sampled_from([None, "away"]),
    giving_failure=st.sampled_from([None, "fails"]),
)


@given(everything)
def test_whatever_the_facts_the_answer_is_in_one_order_and_always_the_same(known: Facts) -> None:
    told = explain(known)

    order = list(BlockerKind)
    positions = [order.index(blocker.kind) for blocker in told.blockers]
    assert positions == sorted(positions)
    assert told == explain(known)
    assert told.waiting
    assert all(blocker.message.endswith((".", "away", "fails")) for blocker in told.blockers)
