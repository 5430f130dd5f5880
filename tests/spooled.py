"""What lies in the spool of an agent, read as its next life would, without touching it."""

from pathlib import Path

from agents.disk.spool_lines import Key, WrittenResult, lines_of, meaning_of


def spooled(state_dir: Path) -> list[Key]:
    """Return the results that are owed, the oldest first."""
    owed: dict[Key, None] = {}
    for path in sorted((state_dir / "spool").glob("*.jsonl")):
        for _, line in lines_of(path.read_bytes()):
            meaning = meaning_of(line)
            if isinstance(meaning, WrittenResult):
                owed[meaning.key] = None
            elif isinstance(meaning, list):
                for key in meaning:
                    owed.pop(key, None)
    return list(owed)
