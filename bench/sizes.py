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
    some_waiting: int = _size(100_000, "growth: how many tasks wait, some")
    many_waiting: int = _size(1_000_000, "growth: and many")
    finished: int = _size(1_000_000, "growth: how many tasks have ended long ago; 10000000 is what is promised for")
    feed_rate: int = _size(5_000, "growth: events a second that one reader follows")
    agents: int = _size(10_000, "fleet: how many agents there are; a tenth of them first")
    beat: int = _size(10, "fleet: seconds between the heartbeats of an agent")
    readers: int = _size(5_000, "watching: how many readers there are; a fifth of them first")
    reader_rate: int = _size(200, "watching: events a second")
    seconds: int = _size(
        30, "growth, watching: for how long events are written; fleet: for how long agents are watched"
    )

    @classmethod
    def options(cls) -> dict[str, str]:
        """Return the names of all sizes and what they mean."""
        return {one.name: one.metadata["meaning"] for one in fields(cls)}

    def as_json(self) -> dict[str, int]:
        return asdict(self)


QUICK = Sizes(
    rounds=1,
    tasks=200,
    timed=30,
    some_waiting=2_000,
    many_waiting=5_000,
    finished=2_000,
    feed_rate=500,
    agents=100,
    beat=2,
    readers=50,
    seconds=5,
)
