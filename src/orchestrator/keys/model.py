"""The keys of tasks, as those see them who change tasks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self


class Keyed(Protocol):
    """A task that may have keys."""

    @property
    def ordering_key(self) -> str | None: ...

    @property
    def concurrency_key(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Limit:
    """How many tasks of a concurrency key run at a time, and after how many failures none of the rest begins."""

    at_most: int
    stop_after: int | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """A set of keys of each kind."""

    ordering: frozenset[str] = frozenset()
    concurrency: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tasks: Iterable[Keyed]) -> Self:
        """Return every key of these tasks."""
        tasks = list(tasks)
        return cls(
            frozenset(task.ordering_key for task in tasks if task.ordering_key is not None),
            frozenset(task.concurrency_key for task in tasks if task.concurrency_key is not None),
        )

    def __or__(self, other: Self) -> Self:
        return type(self)(self.ordering | other.ordering, self.concurrency | other.concurrency)

    def __bool__(self) -> bool:
        return bool(self.ordering or self.concurrency)


def has_keys(task: Keyed) -> bool:
    """Say whether a task has any key."""
    return task.ordering_key is not None or task.concurrency_key is not None
