"""A JSON text has one meaning or is refused, in a time that grows with its length and no faster."""

import json
import time

import pytest

from common.json_rules import MAX_DEPTH
from common.json_text import NameTwice, read_json

LARGE = 500_000


def test_a_name_that_repeats_behind_very_many_others_is_found_at_once() -> None:
    text = json.dumps({f"n{number}": 1 for number in range(LARGE)})[:-1] + ', "last": 1, "last": 2}'
    began = time.process_time()

    with pytest.raises(NameTwice, match="'last'"):
        read_json(text)

    # With a search among all names for each of them it would be half an hour.
    assert time.process_time() - began < 20


@pytest.mark.parametrize("depth", [MAX_DEPTH, 500, 900])
def test_a_name_that_repeats_deep_inside_is_named_with_its_place(depth: int) -> None:
    with pytest.raises(NameTwice) as caught:
        read_json("[" * depth + '{"a": 1, "b": {"c": 1, "c": 2}}' + "]" * depth)

    assert caught.value.path == (0,) * depth + ("b",)
