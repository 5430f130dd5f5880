"""The line that shows progress takes no output away and obeys nothing that a report says."""

import io
from types import SimpleNamespace

import pytest

from chiffon.cli import console
from chiffon.cli.console import CLEAR, WITHOUT_WRAPPING
from chiffon.cli.progress_line import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(text: str) -> str:
    return WITHOUT_WRAPPING.format(text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    # Not `sys.stderr` itself: pytest puts another there before the test begins.
    monkeypatch.setattr(console, "sys", SimpleNamespace(stderr=terminal))
    return terminal


def test_a_report_takes_the_place_of_the_one_before_and_goes_at_the_end(terminal: Terminal) -> None:
    with ProgressLine() as line:
        line.show("10% begun")
        line.show("10% begun")
        line.show("20% on")

    assert terminal.getvalue() == drawn("10% begun") + CLEAR + drawn("20% on") + CLEAR


def test_an_attempt_that_begins_again_has_no_report(terminal: Terminal) -> None:
    with ProgressLine() as line:
        line.show("90% nearly")
        line.show("")

        assert terminal.getvalue() == drawn("90% nearly") + CLEAR


def test_the_line_stays_away_while_output_ends_inside_a_line(terminal: Terminal) -> None:
    with ProgressLine() as line:
        line.show("10% begun")
        with line.aside("Sure? ", on_terminal=True):
            terminal.write("Sure? ")
        line.show("20% on")
        assert terminal.getvalue() == drawn("10% begun") + CLEAR + "Sure? "

        with line.aside("yes\n", on_terminal=True):
            terminal.write("yes\n")

        assert terminal.getvalue().endswith("Sure? yes\n" + drawn("20% on"))


def test_output_that_goes_elsewhere_leaves_the_line_where_it_is(terminal: Terminal) -> None:
    with ProgressLine() as line:
        line.show("10% begun")
        with line.aside("no line end", on_terminal=False):
            pass

        assert terminal.getvalue() == drawn("10% begun") + CLEAR + drawn("10% begun")


def test_what_a_terminal_would_obey_is_written_out(terminal: Terminal) -> None:
    with ProgressLine() as line:
        line.show("40% \x1b[2J\u202e")

        assert terminal.getvalue() == drawn("40% \\u001b[2J\\u202e")


@pytest.mark.parametrize(("else_lines", "printed"), [(True, "Progress: 1% a\nProgress: 2% b\n"), (False, "")])
def test_without_a_terminal_there_are_lines_or_nothing(
    capsys: pytest.CaptureFixture[str], else_lines: bool, printed: str
) -> None:
    with ProgressLine(else_lines=else_lines) as line:
        for report in ("1% a", "1% a", "", "2% b"):
            line.show(report)
        with line.aside("output\n", on_terminal=False):
            pass

    assert capsys.readouterr().err == printed
