"""How many tickets may be published without asking the ledger first: a memory of what the relay found there.

The ledger knows how many tickets of a queue are ahead of the agents, and which come first. As long as none of them
waits, a new one is behind nobody, and may go with its task. What is remembered can be wrong by a few tickets, as when
another orchestrator publishes too; the window is that much larger then, until the relay counts again.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from orchestrator.outbox.model import NewTicket
from orchestrator.outbox.offers import ANYTHING

# While tickets wait, the relay looks when this part of the window was used up, and not for each ticket: the others are
# ahead of the agents still.
PARTS = 4


class Places:
    """The places that one transaction takes for its tickets. `tickets` are those that got one."""

    def __init__(self, room: "Room") -> None:
        self.tickets: list[NewTicket] = []
        self._room = room

    def divide(self, tickets: Iterable[NewTicket]) -> tuple[list[NewTicket], list[NewTicket]]:
        """Take places for the most urgent tickets; return those that got one, and those that wait for the relay."""
        later: list[NewTicket] = []
        for ticket in sorted(tickets, key=lambda ticket: -ticket.priority):
            goes = self._room.is_for_all(ticket.recipient, ticket.work_type) and self._room.take(ticket.recipient)
            (self.tickets if goes else later).append(ticket)
        return self.tickets, later

    def keep_only(self, task_ids: Collection[UUID]) -> None:
        """Let go the places of other tasks: they were known already, and have no new ticket."""
        for ticket in [ticket for ticket in self.tickets if ticket.task_id not in task_ids]:
            self.tickets.remove(ticket)
            self._room.leave(ticket.recipient)


class Room:
    """Counts down what is free in each queue. A queue is short when a ticket of it may be waiting: nothing is free."""

    def __init__(self, *, window: int = 1) -> None:
        self._worth_a_look = max(1, window // PARTS)
        self._free: dict[str, int] = {}
        self._used_up: dict[str, int] = {}
        # Taken by transactions that are under way: the relay may look before the ledger shows them.
        self._under_way: Counter[str] = Counter()
        self.aimed_wait = False
        self.offers = ANYTHING

    @property
    def calls_relay(self) -> bool:
        """Say whether enough was used up of a short queue."""
        return any(count >= self._worth_a_look for count in self._used_up.values())

    def found(self, queue: str, *, free: int, taken: int) -> None:
        """Note what the relay found: for so many there was room, and so many it took."""
        left = max(0, free - taken)
        self._free[queue] = max(0, left - self._under_way[queue])
        # Nothing waits, but perhaps nothing is free either: the next look tells.
        self._used_up[queue] = self._worth_a_look if left and not self._free[queue] else 0

    @contextmanager
    def taking(self) -> Iterator[Places]:
        """Take places for a transaction, the block; when it fails they are free again."""
        places = Places(self)
        try:
            yield places
        except BaseException:
            for ticket in places.tickets:
                self._free[ticket.recipient] += 1
            raise
        finally:
            self._under_way.subtract(ticket.recipient for ticket in places.tickets)

    def take(self, queue: str) -> bool:
        """Take the place of one ticket, or return False when it must wait for the relay."""
        free = self._free.get(queue, 0)
        if free > 0:
            self._free[queue] = free - 1
            self._under_way[queue] += 1
        return free > 0

    def leave(self, queue: str) -> None:
        """Leave a place that was taken, as if it had never been."""
        self._free[queue] += 1
        self._under_way[queue] -= 1

    def is_for_all(self, queue: str, work_type: str) -> bool:
        """Return whether every agent of the queue offered this type of work when the relay looked."""
        return self.offers.is_for_all(queue, work_type)

    def is_open(self, queue: str) -> bool:
        """Say whether none of its tickets waits, so that what is new is behind nobody."""
        return self._free.get(queue, 0) > 0

    def knows(self, queue: str) -> bool:
        """Say whether the relay serves this queue and has looked at it."""
        return queue in self._free

    def give_back(self, queue: str) -> None:
        """A ticket was used up. A short queue stays short until the relay has looked."""
        if self._free.get(queue, 0) > 0:
            self._free[queue] += 1
        elif queue in self._free:
            self._used_up[queue] += 1
