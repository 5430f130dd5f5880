"""What cannot be seen is written out, and nothing else about a text changes."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.visible import is_hidden, visible, visible_json

TRICKS = {
    "right-to-left override": "\u202e",
    "left-to-right isolate": "\u2066",
    "zero width space": "\u200b",
    "zero width joiner": "\u200d",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "no-break space": "\u00a0",
    "Hangul filler": "\u3164",
    "variation selector": "\ufe0f",
    "tag": "\U000e0041",
    "escape": "\x1b",
    "carriage return": "\r",
    "line separator": "\u2028",
    "private use": "\ue000",
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS.keys())
def test_what_hides_is_written_out(trick: str) -> None:
    shown = visible_json({"argv": ["rm", f"a{trick}b"]})

    assert trick not in shown
    assert trick not in visible(f"a{trick}b")
    assert json.loads(shown) == {"argv": ["rm", f"a{trick}b"]}


def test_what_can_be_seen_stays_as_it_is() -> None:
    assert visible("Grüße, мир, 世界! 🎉 a b") == "Grüße, мир, 世界! 🎉 a b"


def test_a_text_that_says_so_is_not_taken_for_what_hides() -> None:
    assert visible("\\u202e") != visible("\u202e")
    assert visible_json("\\u202e") != visible_json("\u202e")


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))
def test_what_is_shown_is_exactly_the_value(value: object) -> None:
    shown = visible_json(value)

    assert json.loads(shown) == value
    assert not any(is_hidden(one) for one in shown if one != "\n")
    assert all(unicodedata.category(one) not in {"Cf", "Cc"} for one in shown if one != "\n")
