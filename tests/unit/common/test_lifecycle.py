"""The life cycle of a task is the table, and nothing else."""

from itertools import product

import pytest

from common.lifecycle import FINAL, TRANSITIONS, Change, InvalidTransition, Status, next_status


@pytest.mark.parametrize(("status", "change"), list(product(Status, Change)), ids=str)
def test_a_change_is_possible_exactly_when_the_table_has_it(status: Status, change: Change) -> None:
    if (status, change) in TRANSITIONS:
        assert next_status(status, change) is TRANSITIONS[status, change]
    else:
        with pytest.raises(InvalidTransition):
            next_status(status, change)


def test_final_is_final() -> None:
    assert not [status for status, _ in TRANSITIONS if status.is_final]
    assert {status for status in Status if status.is_final} == FINAL


def test_every_status_can_be_reached_and_every_other_one_can_be_left() -> None:
    assert set(TRANSITIONS.values()) | {Status.AWAITING_APPROVAL} == set(Status)
    assert {status for status, _ in TRANSITIONS} == set(Status) - FINAL


def test_the_error_says_what_was_tried() -> None:
    with pytest.raises(InvalidTransition, match="completed does not allow the change 'lose_lease'"):
        next_status(Status.COMPLETED, Change.LOSE_LEASE)
