"""How many tickets may be published without asking the ledger first: a memory of what the relay found there.

The ledger knows how many tickets of a queue are ahead of the agents, and which come first. As long as none of them
waits, a new one is behind nobody, and may go with its task. What is remembered can be wrong by a few tickets, as when
another orchestrator publishes too; the window is that much larger then, until the relay counts again.
"""

from collections.abc import Iterable

from orchestrator.outbox.model import NewTicket

# While tickets wait, the relay looks when this part of the window was used up, and not for each ticket: the others are
# ahead of the agents still.
PARTS = 4


class Room:
    """Counts down what is free in each queue. A queue is short when a ticket of it may be waiting: nothing is free."""

    def __init__(self, *, window: int = 1) -> None:
        self._worth_a_look = max(1, window // PARTS)
        self._free: dict[str, int] = {}
        self._used_up: dict[str, int] = {}
        self.aimed_wait = False

    @property
    def calls_relay(self) -> bool:
        """Say whether enough was used up of a short queue."""
        return any(count >= self._worth_a_look for count in self._used_up.values())

    def found(self, queue: str, *, free: int, taken: int) -> None:
        """Note what the relay found: for so many there was room, and so many it took."""
        self._free[queue] = max(0, free - taken)
        self._used_up[queue] = 0

    def take(self, queue: str) -> bool:
        """Take the place of one ticket, or return False when it must wait for the relay."""
        free = self._free.get(queue, 0)
        if free > 0:
            self._free[queue] = free - 1
        return free > 0

    def divide(self, tickets: Iterable[NewTicket]) -> tuple[list[NewTicket], list[NewTicket]]:
        """Take places for the most urgent tickets; return those that got one, and those that wait for the relay."""
        at_once: list[NewTicket] = []
        later: list[NewTicket] = []
        for ticket in sorted(tickets, key=lambda ticket: -ticket.priority):
            (at_once if self.take(ticket.recipient) else later).append(ticket)
        return at_once, later

    def knows(self, queue: str) -> bool:
        """Say whether the relay serves this queue and has looked at it."""
        return queue in self._free

    def give_back(self, queue: str) -> None:
        """A ticket was used up. A short queue stays short until the relay has looked."""
        if self._free.get(queue, 0) > 0:
            self._free[queue] += 1
        elif queue in self._free:
            self._used_up[queue] += 1
