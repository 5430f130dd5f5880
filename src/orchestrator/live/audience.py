"""Who reads, by what they want: an event is compared only with filters that may want it, and once for equal ones."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from uuid import UUID

from orchestrator.live.frame import Frame, Page, pages
from orchestrator.live.subscription import Filter, Subscription

# One id that a filter names, or none.
Place = UUID | None


class Audience:
    """The subscriptions, by an id that their filter names."""

    def __init__(self) -> None:
        self._places: defaultdict[Place, dict[Filter, set[Subscription]]] = defaultdict(dict)

    def add(self, subscription: Subscription) -> None:
        wanted = subscription.wanted
        self._places[_place(wanted)].setdefault(wanted, set()).add(subscription)

    def discard(self, subscription: Subscription) -> None:
        wanted = subscription.wanted
        place = _place(wanted)
        same = self._places[place].get(wanted, set())
        same.discard(subscription)
        if not same:
            self._places[place].pop(wanted, None)
        if not self._places[place]:
            del self._places[place]

    def shares(self, frames: Iterable[Frame]) -> Iterator[tuple[Page, Sequence[Subscription]]]:
        """Yield what each filter wants of these, page by page, and who has that filter."""
        found: defaultdict[Filter, list[Frame]] = defaultdict(list)
        for frame in frames:
            event = frame.event
            for place in {None, event.task_id, event.trace_id, event.agent_id}:
                for wanted in self._places.get(place, ()):
                    if wanted.matches(event):
                        found[wanted].append(frame)
        for wanted, matching in found.items():
            for page in pages(matching):
                yield page, tuple(self._places.get(_place(wanted), {}).get(wanted, ()))


def _place(wanted: Filter) -> Place:
    return wanted.task_id or wanted.trace_id or wanted.agent_id
