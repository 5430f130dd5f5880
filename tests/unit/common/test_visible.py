"""What cannot be seen is written out, and nothing else about a text changes."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.visible import is_hidden, quoted, shown, shown_output, visible, visible_json

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
    text = visible_json({"argv": ["rm", f"a{trick}b"]})

    assert trick not in text
    assert trick not in visible(f"a{trick}b")
    assert json.loads(text) == {"argv": ["rm", f"a{trick}b"]}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS.keys())
def test_what_a_terminal_obeys_or_hides_is_written_out_on_one_line(trick: str) -> None:
    assert trick not in shown(f"a{trick}b")
    assert shown(f"a{trick}b").startswith("a\\u")
    assert json.loads(shown(json.dumps(f"a{trick}b", ensure_ascii=False))) == f"a{trick}b"


@pytest.mark.parametrize(
    "name",
    [
        "Grüße, мир, 世界! 🎉 a b",
        "naïve café, “quoted” …",
        "Tシャツ",
        "Việt Nam",
        unicodedata.normalize("NFD", "Việt Nam é"),
        "สวัสดี",
        "हिन्दी",
        "Ελληνικά",
        "10µs ±2 m²",
        "C:\\new",
        "[red]no markup[/red]",
    ],
)
def test_plain_names_of_any_script_stay_readable(name: str) -> None:
    assert shown(name) == name


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("pr\u043ed", "pr\\u043ed"),
        ("\u0440\u0430\u0443\u0440\u0430l", "\\u0440\\u0430\\u0443\\u0440\\u0430l"),
        ("\u0440\u0430\u0443", "\\u0440\\u0430\\u0443"),
        ("\uff50rod", "\\uff50rod"),
        ("\U0001d429rod", "\\ud835\\udc29rod"),
        ("\u05d0/1/\u05d1", "\\u05d0/1/\\u05d1"),
        ("\u0661", "\\u0661"),
        ("o\u0338k", "o\\u0338k"),
        ("a" + "\u0301" * 4, "a\u0301\u0301" + "\\u0301" * 2),
        (" \u0301", " \\u0301"),
    ],
    ids=[
        "Cyrillic o",
        "mixed",
        "all like Latin",
        "fullwidth",
        "bold",
        "Hebrew",
        "Arabic digit",
        "stroke",
        "pile",
        "alone",
    ],
)
def test_letters_that_look_like_others_or_reorder_a_line_are_written_out(text: str, written: str) -> None:
    assert shown(text) == written


@given(st.text())
def test_a_text_shown_is_one_line_without_anything_hidden_or_right_to_left(text: str) -> None:
    line = shown(text)

    assert len(line.splitlines()) <= 1
    assert not any(is_hidden(one) for one in line)
    assert not {unicodedata.bidirectional(one) for one in line} & {"R", "AL", "AN", "RLO", "LRO", "RLE", "LRE", "RLI"}


@given(st.text())
def test_what_approvers_see_is_printable_ascii(text: str) -> None:
    assert all(" " <= one <= "~" for one in visible(text))
    assert all(" " <= one <= "~" or one == "\n" for one in visible_json({"a": text}))


@given(st.text(), st.text())
def test_two_texts_are_never_written_out_alike(one: str, other: str) -> None:
    assert (visible(one) == visible(other)) == (one == other)


def test_output_keeps_lines_and_tabs_and_loses_colours_and_control_sequences() -> None:
    wrote = "\x1b[1;31mred\x1b[0m\r\na\tж\x1b]52;c;Zm9v\x07\x1b[2J\u202e\rz\u3000\n"

    assert shown_output(wrote) == "red\na\tж\\u001b]52;c;Zm9v\\u0007\\u001b[2J\\u202e\\u000dz\u3000\n"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a", "a"),
        ("a b", '"a b"'),
        ("", '""'),
        ("x=1", '"x=1"'),
        ('a" b="c', '"a\\" b=\\"c"'),
        (7, "7"),
        ("a\\ b", '"a\\\\ b"'),
    ],
)
def test_a_value_behind_its_name_is_one_value(value: object, written: str) -> None:
    assert quoted(value) == written


def test_a_text_that_says_so_is_not_taken_for_what_hides() -> None:
    assert visible("\\u202e") != visible("\u202e")
    assert visible_json("\\u202e") != visible_json("\u202e")


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))
def test_what_is_shown_is_exactly_the_value(value: object) -> None:
    text = visible_json(value)

    assert json.loads(text) == value
    assert not any(is_hidden(one) for one in text if one != "\n")
    assert all(unicodedata.category(one) not in {"Cf", "Cc"} for one in text if one != "\n")
