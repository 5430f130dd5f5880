"""What the logs of all processes say: secrets that should not be there, and results that were written to disk."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.ledger import Ledger

SPOOLED = "result.spooled"


def leaks(folder: Path, ledger: Ledger, secrets: Sequence[str]) -> list[str]:
    """Return every place where a secret stands: lines of logs, and events."""
    found = [
        f"{path.name}:{number}: {line[:300]}"
        for path in sorted(folder.glob("*.log"))
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if any(secret in line for secret in secrets)
    ]
    events = (json.dumps(event, default=str) for event in ledger.events)
    return found + [f"event {text[:300]}" for text in events if any(secret in text for secret in secrets)]


def spooled(folder: Path) -> list[tuple[str, int]]:
    """Return the (task, fence) of each result that an agent said it had on its disk."""
    return [
        (line["task_id"], int(line["fence"]))
        for path in sorted(folder.glob("agent-*.log"))
        for line in _lines(path)
        if line.get("event") == SPOOLED and "fence" in line
    ]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # a traceback of the interpreter itself, or the torn last line of a killed process
            continue
        if isinstance(line, dict):
            yield line
