"""Printing: data to standard output, messages to standard error; plain text unless a terminal reads it.

This is the only module that prints. Each line and cell passes `common.visible.shown`, so that no text of an agent, a
caller or a program adds a line or is obeyed by the terminal; a test forbids `print` and `sys.stdout` elsewhere.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from common.visible import shown, shown_output

STYLES = {
    "completed": "green",
    "online": "green",
    "running": "cyan",
    "busy": "cyan",
    "failed": "bold red",
    "offline": "red",
    "cancelled": "yellow",
    "draining": "yellow",
    "succeeded": "green",
    "in_progress": "cyan",
    "awaiting_approval": "magenta",
    "rolled_back": "yellow",
    "skipped": "dim",
}

CLEAR = "\r\x1b[K"
# Takes away the last lines of the terminal.
CLEAR_LINES = "\x1b[{}A\x1b[J"
# The terminal cuts what is longer than its line, so that the line stays one.
WITHOUT_WRAPPING = "\x1b[?7l{}\x1b[?7h"


def say(*lines: str) -> None:
    """Print a message for people, one line for each argument; it never mixes with data."""
    for line in lines:
        print(shown(line), file=sys.stderr)
    sys.stderr.flush()


def put(*lines: str) -> None:
    """Print data, one line for each argument."""
    for line in lines:
        print(shown(line), file=sys.stdout)
    sys.stdout.flush()


def put_styled(*parts: tuple[str, str]) -> None:
    """Print one line of texts, each with the style that it has on a terminal."""
    _put_styled([(shown(text), style) for text, style in parts])


def put_output(text: str, stream: str, *, raw: bool) -> None:
    """Print what a program wrote to its `stdout` or `stderr` to ours.

    A terminal gets it without control sequences, unless `raw`; a file or a pipe gets every character.
    """
    to = getattr(sys, stream)
    to.write(text if raw or not is_terminal(stream) else shown_output(text))
    to.flush()


def is_terminal(stream: str) -> bool:
    """Say whether a terminal reads our `stdout` or `stderr`."""
    return bool(getattr(sys, stream).isatty())


def draw_last_line(text: str) -> None:
    """Show a text in the last line of the terminal at standard error, which stays one line."""
    sys.stderr.write(WITHOUT_WRAPPING.format(shown(text)))
    sys.stderr.flush()


def clear_last_line() -> None:
    """Clear the last line of the terminal at standard error."""
    sys.stderr.write(CLEAR)
    sys.stderr.flush()


def draw_block(lines: Sequence[Sequence[tuple[str, str]]], *, over: int) -> None:
    """Show styled lines at the bottom of the terminal in place of the last `over` ones; each stays one line."""
    from rich.console import Console
    from rich.text import Text

    width, height = shutil.get_terminal_size()
    console = Console(file=sys.stdout, highlight=False, width=width, height=height)
    # One write, so that a reader never sees the terminal without them.
    with console.capture() as drawn:
        for parts in lines:
            text = Text.assemble(*((shown(part), style) for part, style in parts))
            console.print(text, no_wrap=True, overflow="ellipsis", crop=True)
    sys.stdout.write((CLEAR_LINES.format(over) if over else "") + drawn.get())
    sys.stdout.flush()


def terminal_height() -> int:
    """Return how many lines the terminal has."""
    return shutil.get_terminal_size().lines


def print_json(value: Any) -> None:
    """Print one JSON document on one line, with escapes for what a terminal obeys and what the encoding lacks."""
    text = json.dumps(_plain(value), ensure_ascii=False)
    put(text if _can_be_written(text) else json.dumps(_plain(value)))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns, with nothing cut off; a status has its colour on a terminal."""
    texts = [[shown(_cell(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    lines = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in (list(columns), *texts)]
    for number, line in enumerate(lines):
        cells = [(cell, "bold" if number == 0 else STYLES.get(cell.strip(), "")) for cell in line]
        _put_styled([part for cell in cells for part in (("  ", ""), cell)][1:])


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names and values under each other, leaving out what has no value."""
    known = [(name, _cell(value)) for name, value in fields if value not in (None, "")]
    width = max(len(name) for name, _ in known)
    put(*(f"{name.ljust(width)}  {value}" for name, value in known))


def _can_be_written(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return str(value)


def _put_styled(parts: Sequence[tuple[str, str]]) -> None:
    if not is_terminal("stdout"):
        print("".join(text for text, _ in parts).rstrip(), file=sys.stdout)
        sys.stdout.flush()
        return
    from rich.console import Console
    from rich.text import Text

    # Of `Text` rich interprets no markup.
    Console(file=sys.stdout, highlight=False, soft_wrap=True).print(Text.assemble(*parts))
