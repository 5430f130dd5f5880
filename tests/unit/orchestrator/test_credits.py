"""New work goes at once to agents that are known to have room, and to nobody who cannot be told."""

from uuid import UUID

import pytest

from orchestrator.leases.credits import Credits
from orchestrator.leases.model import Line
from orchestrator.registry.model import Room

ONE, OTHER = UUID(int=1), UUID(int=2)


def with_room(
    credits: Credits, rooms: dict[UUID, int], *, pool: str = "infra", work_types: tuple[str, ...] = ()
) -> None:
    for agent_id in rooms:
        credits.offers(agent_id, pool, work_types)
    credits.learn(Room(agent_id, room, 1, 0) for agent_id, room in rooms.items())


def test_agents_that_have_room_take_turns_until_none_has_any() -> None:
    credits = Credits()
    with_room(credits, {ONE: 2, OTHER: 1})

    assert [credits.take("infra", "echo") for _ in range(4)] == [ONE, OTHER, ONE, None]


def test_work_goes_only_to_agents_of_its_pool_that_offer_it() -> None:
    credits = Credits()
    with_room(credits, {ONE: 1}, work_types=("echo",))
    with_room(credits, {OTHER: 1}, pool="gpu")

    assert credits.take("infra", "render") is None
    assert credits.take("infra", "echo") == ONE
    assert credits.take("gpu", "render") == OTHER


def test_new_work_goes_to_nobody_while_older_work_of_its_pool_waits() -> None:
    credits = Credits()
    with_room(credits, {ONE: 2})

    credits.waits_in("infra")
    assert credits.take("infra", "echo") is None
    credits.waiting([Line("infra", "echo", "")])
    assert credits.take("infra", "echo") is None
    credits.waiting([])
    assert credits.take("infra", "echo") == ONE


def test_work_that_no_agent_offers_holds_up_nothing() -> None:
    credits = Credits()
    with_room(credits, {ONE: 1}, work_types=("echo",))

    credits.waiting([Line("infra", "render", "")])

    assert not credits.tasks_wait
    assert credits.take("infra", "echo") == ONE


def test_new_work_goes_to_nobody_while_the_broker_is_away() -> None:
    is_there = False
    credits = Credits(lambda: is_there)
    with_room(credits, {ONE: 1})

    assert credits.take("infra", "echo") is None
    is_there = True
    assert credits.take("infra", "echo") == ONE


def test_the_word_of_the_ledger_replaces_what_was_thought() -> None:
    credits = Credits()
    with_room(credits, {ONE: 3})
    assert credits.take("infra", "echo") == ONE

    credits.learn([Room(ONE, 0, 2, 3)])
    assert credits.take("infra", "echo") is None
    credits.learn([Room(ONE, 1, 3, 3)])
    assert credits.take("infra", "echo") == ONE


def test_an_agent_of_which_only_its_room_is_known_gets_nothing_at_once() -> None:
    credits = Credits()

    credits.learn([Room(ONE, 5, 1, 0)])

    assert credits.take("infra", "echo") is None


def test_an_agent_that_offers_something_else_now_gets_no_more_of_what_it_did() -> None:
    credits = Credits()
    with_room(credits, {ONE: 2}, work_types=("echo",))

    credits.offers(ONE, "infra", ("render",))

    assert credits.take("infra", "echo") is None
    assert credits.take("infra", "render") == ONE


def test_work_that_waits_in_one_pool_holds_up_no_other() -> None:
    credits = Credits()
    with_room(credits, {ONE: 1})
    with_room(credits, {OTHER: 1}, pool="gpu")

    credits.waiting([Line("gpu", "echo", "")])

    assert credits.tasks_wait
    assert credits.take("gpu", "echo") is None
    assert credits.take("infra", "echo") == ONE


def test_no_more_agents_are_remembered_than_there_is_space_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.leases.credits.MOST", 2)
    credits = Credits()
    with_room(credits, {UUID(int=number): 1 for number in range(1, 4)})

    assert [credits.take("infra", "echo") for _ in range(2)] == [UUID(int=3), None]
