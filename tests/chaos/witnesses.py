"""What the agents wrote down for themselves: their journals of what they started and what became of it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.spooled import spooled


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of an agent's journal: an attempt `started`, or `ended` with its result on disk."""

    agent: str
    event: str
    task_id: str
    attempt: int
    status: str | None = None


def read_witnesses(states: Path) -> list[Entry]:
    """Return what the journals of all agents say, each agent's lines in their order."""
    return [
        Entry(state.name, line["event"], line["task_id"], line["attempt"], line.get("status"))
        for state in sorted(states.iterdir())
        for path in (state / "journal.1.jsonl", state / "journal.jsonl")
        if path.exists()
        for line in _lines(path.read_bytes().split(b"\n"))
        if line.get("event") in ("started", "ended")
    ]


def waiting_results(states: Path) -> int:
    """Return how many results still lie in spools."""
    return sum(len(spooled(state)) for state in states.iterdir())


def _lines(texts: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for text in texts:
        try:
            line = json.loads(text)
        except ValueError:  # empty, or torn by a crash
            continue
        if isinstance(line, dict):
            yield line
