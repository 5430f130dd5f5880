"""What a worker and the server said to each other."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PREFIX = "/api/queue/"
ENDS = ("complete", "fail")
# What the owner of an attempt says about it.
OWN = ("heartbeat", "progress", "output", *ENDS)


@dataclass(eq=False)
class Exchange:
    """A request of the worker and what became of it; times are those of the monotonic clock, in seconds.

    `status` and `answer` are what the server, or the proxy in its place, answered; `answered_at` is None when the
    worker was never told.
    """

    method: str
    path: str
    body: Any
    asked_at: float
    status: int | None = None
    answer: Any = None
    answered_at: float | None = None

    @property
    def action(self) -> str:
        """`claim`, `heartbeat`, `complete`, …; for workers that register `report`; otherwise the path."""
        parts = self.path.partition("?")[0].removeprefix(PREFIX).split("/")
        match parts:
            case ["jobs", "claim"]:
                return "claim"
            case ["jobs", _, action]:
                return action
            case ["workers", _, "heartbeat"]:
                return "report"
            case _:
                return self.path

    @property
    def job_id(self) -> str | None:
        """The job that it is about: that of its path, or the one that a claim was given."""
        if self.action == "claim":
            return None if self.given is None else str(self.given["id"])
        parts = self.path.removeprefix(PREFIX).split("/")
        return parts[1] if parts[0] == "jobs" and len(parts) == 3 else None

    @property
    def given(self) -> dict[str, Any] | None:
        """The job that a claim got, if any; whether the worker heard of it or not."""
        job = self.answer.get("job") if self.action == "claim" and isinstance(self.answer, dict) else None
        return job if isinstance(job, dict) else None

    def says(self, name: str) -> Any:
        """Return a field of the request's body; None when there is none."""
        return self.body.get(name) if isinstance(self.body, dict) else None


@dataclass
class Traffic:
    """Every exchange of a case, in the order in which they were begun."""

    exchanges: list[Exchange] = field(default_factory=list)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self.exchanges)

    def of(self, *actions: str, job: str | None = None, since: float = 0.0) -> list[Exchange]:
        """Return the exchanges of these kinds, about a job if one is named, that were begun since then."""
        return [
            one
            for one in self.exchanges
            if one.action in actions and one.asked_at >= since and job in (None, one.job_id)
        ]


def parsed(content: bytes) -> Any:
    """Return a body as JSON; None when it is none."""
    try:
        return json.loads(content)
    except ValueError:
        return None
