"""What must not stand in the logs of all processes."""

import json
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.ledger import Ledger

# What is logged when something happens that nobody has thought of, whatever is away.
UNEXPLAINED = (
    "work.lost",
    "work.executor_failed",
    "work.host_failed",
    "request.failed",
    "message.unhandled",
    "outbox.unreadable",
    "spool.failed",
    "spool.unreadable",
    "result.dropped",
    "journal.failed",
)


def unexplained(folder: Path) -> list[str]:
    """Return the errors that should never happen, each as a line."""
    return [
        f"{path.name}: {text[:2000]}"
        for path in sorted(folder.glob("*.log"))
        for text in path.read_text(errors="replace").splitlines()
        if any(f'"event": "{event}"' in text for event in UNEXPLAINED)
    ]


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
