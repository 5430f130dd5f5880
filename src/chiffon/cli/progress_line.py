"""Where a task or a fan-out stands, on standard error: a line at the bottom of a terminal, or one for each report."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from chiffon.cli.console import clear_last_line, draw_last_line, is_terminal, say


class ProgressLine:
    """Shows the newest report. Use it as a context manager; afterwards its line is gone.

    Where standard error is no terminal, `else_lines` has each report printed once, and otherwise nothing is shown.
    """

    def __init__(self, *, else_lines: bool = False) -> None:
        self._is_line = is_terminal("stderr")
        self._else_lines = else_lines
        self._text = ""
        self._is_shown = False
        # Text without a line end may stand before the cursor; clearing the line would take it away.
        self._is_free = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def show(self, report: str) -> None:
        """Show a report in place of the one before; an empty one shows nothing."""
        if report == self._text:
            return
        self._text = report
        if self._is_line:
            self._draw()
        elif self._else_lines and report:
            say(f"Progress: {report}")

    @contextmanager
    def aside(self, text: str, *, on_terminal: bool) -> Iterator[None]:
        """Make room for a text that is printed in the block, on the terminal or elsewhere."""
        self._clear()
        yield
        if on_terminal and text:
            self._is_free = text.endswith("\n")
        self._draw()

    def _draw(self) -> None:
        if self._is_line and self._is_free:
            self._clear()
            if self._text:
                draw_last_line(self._text)
                self._is_shown = True

    def _clear(self) -> None:
        if self._is_shown:
            clear_last_line()
            self._is_shown = False
