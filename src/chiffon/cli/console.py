"""Printing: data to standard output, messages to standard error; plain text unless a terminal reads it."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

STYLES = {
    "completed": "green",
    "online": "green",
    "running": "cyan",
    "busy": "cyan",
    "failed": "bold red",
    "offline": "red",
    "cancelled": "yellow",
    "draining": "yellow",
}


def say(message: str) -> None:
    """Print a message for people; it never mixes with data."""
    print(message, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print one JSON document on one line, with escapes for what the encoding of the output lacks."""
    text = json.dumps(_plain(value), ensure_ascii=False)
    sys.stdout.write((text if _can_be_written(text) else json.dumps(_plain(value))) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns, with nothing cut off; a status has its colour on a terminal."""
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    lines = [[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in (list(columns), *texts)]
    if sys.stdout.isatty():
        _print_coloured(lines)
        return
    for line in lines:
        print("  ".join(line).rstrip())


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names and values under each other, leaving out what has no value."""
    known = [(name, _cell(value)) for name, value in fields if value not in (None, "")]
    width = max(len(name) for name, _ in known)
    for name, value in known:
        print(f"{name.ljust(width)}  {value}")


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


def _print_coloured(lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for number, line in enumerate(lines):
        cells = (Text(cell, style="bold" if number == 0 else STYLES.get(cell.strip(), "")) for cell in line)
        console.print(Text("  ").join(cells))
