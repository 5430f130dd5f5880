"""What a caller may ask for: which keys and limits can be kept."""

from datetime import timedelta

import pytest

from common.errors import InvalidField
from orchestrator.keys.model import Keys
from orchestrator.tasks.dispatch import check_keys, check_wait
from tests.factories import make_new_task


@pytest.mark.parametrize(
    ("ordering_key", "concurrency_key", "limit"),
    [(None, None, None), ("o", None, None), (None, "c", 1), ("o" * 200, "c" * 200, 1000)],
)
def test_keys_that_can_be_kept_are_accepted(
    ordering_key: str | None, concurrency_key: str | None, limit: int | None
) -> None:
    check_keys(ordering_key, concurrency_key, limit)


@pytest.mark.parametrize(
    ("ordering_key", "concurrency_key", "limit", "field"),
    [
        ("", None, None, "ordering_key"),
        ("o" * 201, None, None, "ordering_key"),
        (None, "", 1, "concurrency_key"),
        (None, "c" * 201, 1, "concurrency_key"),
        (None, "c", None, "concurrency_limit"),
        (None, None, 1, "concurrency_limit"),
        ("o", None, 1, "concurrency_limit"),
        (None, "c", 0, "concurrency_limit"),
        (None, "c", 1001, "concurrency_limit"),
        (None, "fan-out:mine", 1, "concurrency_key"),
    ],
)
def test_a_limit_belongs_to_a_concurrency_key_and_both_have_bounds(
    ordering_key: str | None, concurrency_key: str | None, limit: int | None, field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        check_keys(ordering_key, concurrency_key, limit)

    assert caught.value.field == field


@pytest.mark.parametrize("wait", [None, timedelta(microseconds=1), timedelta(days=30)])
def test_a_limit_on_waiting_that_can_be_kept_is_accepted(wait: timedelta | None) -> None:
    check_wait(wait)


@pytest.mark.parametrize("wait", [timedelta(0), timedelta(seconds=-1), timedelta(days=30, microseconds=1)])
def test_a_limit_on_waiting_is_more_than_nothing_and_at_most_30_days(wait: timedelta) -> None:
    with pytest.raises(InvalidField) as caught:
        check_wait(wait)

    assert caught.value.field == "expires_after_seconds"


def test_the_keys_of_tasks_are_each_named_once() -> None:
    tasks = [
        make_new_task(),
        make_new_task(ordering_key="a"),
        make_new_task(ordering_key="a", concurrency_key="c", concurrency_limit=1),
    ]

    assert Keys.of(tasks) == Keys(frozenset({"a"}), frozenset({"c"}))
    assert not Keys.of(tasks[:1])
    assert Keys(frozenset({"a"})) | Keys(frozenset({"b"}), frozenset({"c"})) == Keys(
        frozenset({"a", "b"}), frozenset({"c"})
    )
