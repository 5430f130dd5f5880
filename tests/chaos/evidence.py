"""Everything that the checks look at, and what they find."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tests.chaos.history import History
from tests.chaos.journal import Run
from tests.chaos.ledger import Ledger, Row
from tests.chaos.witnesses import Entry


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, by its name and, where it is about one, its task."""

    promise: str
    text: str
    task_id: str | None = None

    def __str__(self) -> str:
        return f"{self.promise}: {self.text}"


@dataclass
class Evidence:
    """What clients were told, what ran, what the ledger says, what the feed showed, what the logs hold."""

    history: History
    runs: Sequence[Run]
    ledger: Ledger
    followed: Sequence[tuple[int, str, str | None]]
    leaks: Sequence[str] = ()
    witnesses: Sequence[Entry] = ()
    errors: Sequence[str] = ()
    """Lines of logs that tell of something that no fault explains."""
    unsent: int = 0
    """Results that agents still had on their disks when everything was over."""

    @cached_property
    def runs_of(self) -> Mapping[str, list[Run]]:
        """The runs of each piece of work, whatever task they ran for."""
        grouped: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            grouped[run.work].append(run)
        return grouped

    @cached_property
    def events_of(self) -> Mapping[str, list[Row]]:
        grouped: dict[str, list[Row]] = defaultdict(list)
        for event in self.ledger.events:
            if event["task_id"] is not None:
                grouped[event["task_id"]].append(event)
        return grouped

    @cached_property
    def attempts_of(self) -> Mapping[str, list[Row]]:
        grouped: dict[str, list[Row]] = defaultdict(list)
        for attempt in self.ledger.attempts:
            grouped[attempt["task_id"]].append(attempt)
        return grouped
