"""A report of progress is one short line, and its percentage can be read from it."""

import pytest

from common.progress import LONGEST_MESSAGE, LONGEST_REPORT, on_one_line, parsed, percent_of, report


@pytest.mark.parametrize(
    ("line", "message", "percent"),
    [
        ("40 copying files", "copying files", 40),
        ("40% copying files", "copying files", 40),
        ("40 % copying", "copying", 40),
        ("99.9% nearly", "nearly", 99),
        ("0", "", 0),
        ("100%", "", 100),
        ("copying 40 files", "copying 40 files", None),
        ("101 dalmatians", "101 dalmatians", None),
        ("40th file", "40th file", None),
        ("40%done", "40%done", None),
        ("-1 below", "-1 below", None),
        ("\u0664\u0660 files", "\u0664\u0660 files", None),
    ],
)
def test_a_number_from_0_to_100_before_the_message_is_the_percentage(
    line: str, message: str, percent: int | None
) -> None:
    assert parsed(line) == (message, percent)


@pytest.mark.parametrize(
    ("message", "percent", "text"),
    [
        ("copying", 40, "40% copying"),
        ("copying", 99.9, "99% copying"),
        ("copying", None, "copying"),
        ("", 7, "7%"),
        ("", None, ""),
        ("beyond", 250, "100% beyond"),
        ("below", -3.5, "0% below"),
        ("no number", float("nan"), "0% no number"),
        ("two\nlines\tand  \x1b[31mred\u202e\u200b\x00 ", None, "two lines and [31mred"),
    ],
)
def test_a_report_is_one_line_that_begins_with_its_percentage(message: str, percent: float | None, text: str) -> None:
    assert report(message, percent) == text


def test_a_long_message_is_cut() -> None:
    assert report("x" * 5000, 100) == "100% " + "x" * LONGEST_MESSAGE
    assert len(report("x" * 5000, 100)) == LONGEST_REPORT


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        ("40% copying files", 40),
        ("40 % copying files", 40),
        ("99.5%", 99),
        ("0% begun", 0),
        ("3 files left", None),
        ("250% of the plan", None),
        ("copied 40% of it", None),
        ("", None),
    ],
)
def test_the_percentage_is_read_from_the_text_only_with_its_sign(text: str, percent: int | None) -> None:
    assert percent_of(text) == percent


@pytest.mark.parametrize("percent", [None, 0, 50, 100])
def test_what_is_read_from_a_report_is_what_was_said(percent: int | None) -> None:
    assert percent_of(report("copying", percent)) == percent


def test_a_text_that_shows_nothing_is_empty() -> None:
    assert on_one_line("\x00\x1b\u200b\u2028 \r\n") == ""
