"""How much is measured."""

from dataclasses import asdict, dataclass, field, fields


def _size(full: int, meaning: str) -> int:
    size: int = field(default=full, metadata={"meaning": meaning})
    return size


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a full run."""

    rounds: int = _size(5, "how often everybody has a turn")
    tasks: int = _size(5_000, "tasks in one turn")
    callers: int = _size(32, "callers at the same time")
    timed: int = _size(500, "tasks that are timed one after another, in all rounds together")

    @classmethod
    def options(cls) -> dict[str, str]:
        """Return the names of all sizes and what they mean."""
        return {one.name: one.metadata["meaning"] for one in fields(cls)}

    def as_json(self) -> dict[str, int]:
        return asdict(self)


QUICK = Sizes(rounds=1, tasks=200, timed=30)
