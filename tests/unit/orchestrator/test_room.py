"""What may be published without asking the ledger: never more than the relay found room for."""

from uuid import uuid4

import pytest

from orchestrator.outbox.model import NewTicket
from orchestrator.outbox.room import Room

pytestmark = pytest.mark.path_internals


def _ticket() -> NewTicket:
    return NewTicket(uuid4(), uuid4(), uuid4(), "echo", "infra", 3, fence=0)


def test_before_the_relay_has_looked_there_is_no_room() -> None:
    assert not Room().take("infra")


def test_as_many_tickets_go_as_there_was_room_for_and_then_none() -> None:
    room = Room()
    room.found("infra", free=3, taken=1)

    assert [room.take("infra") for _ in range(3)] == [True, True, False]


def test_a_queue_of_which_tickets_were_left_behind_takes_none_until_the_relay_finds_it_empty() -> None:
    room = Room()
    room.found("infra", free=2, taken=2)
    room.give_back("infra")
    assert not room.take("infra"), "it would go before those that wait"

    room.found("infra", free=2, taken=0)

    assert room.take("infra")


def test_a_ticket_that_was_used_up_leaves_its_place_to_another() -> None:
    room = Room()
    room.found("infra", free=2, taken=0)
    room.take("infra")
    room.give_back("infra")

    assert [room.take("infra") for _ in range(3)] == [True, True, False]


def test_queues_do_not_share_their_room() -> None:
    room = Room()
    room.found("infra", free=1, taken=1)
    room.found("desktop", free=1, taken=0)

    assert not room.take("infra")
    assert room.take("desktop")


def test_the_relay_is_called_when_a_quarter_of_the_window_was_used_up_and_not_for_each_ticket() -> None:
    room = Room(window=8)
    room.found("infra", free=8, taken=8)

    called = []
    for _ in range(3):
        room.give_back("infra")
        called.append(room.calls_relay)
    room.found("infra", free=3, taken=3)

    assert called == [False, True, True]
    assert not room.calls_relay


def test_of_the_smallest_window_each_ticket_calls_the_relay() -> None:
    room = Room(window=1)
    room.found("infra", free=1, taken=1)

    room.give_back("infra")

    assert room.calls_relay


def test_places_of_a_transaction_that_is_under_way_are_not_found_free() -> None:
    room = Room(window=8)
    room.found("infra", free=2, taken=0)
    with room.taking():
        room.take("infra")
        room.found("infra", free=2, taken=0)  # the ledger does not show it yet

        assert [room.take("infra") for _ in range(2)] == [True, False]


def test_places_of_a_transaction_that_failed_are_free_again() -> None:
    room = Room()
    room.found("infra", free=1, taken=0)

    def fail() -> None:
        with room.taking() as places:
            places.divide([_ticket()])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert room.take("infra")


def test_a_queue_that_only_seems_to_be_full_calls_the_relay() -> None:
    room = Room(window=8)
    room.found("infra", free=1, taken=0)
    with room.taking() as places:
        places.divide([_ticket()])
        room.found("infra", free=1, taken=0)

        assert room.calls_relay, "nothing waits, and the next ticket would wait for the relay's next second"
