"""How many tickets may be published without asking the ledger first: a memory of what the relay found there.

The ledger knows how many tickets of a queue are ahead of the agents, and which come first. As long as none of them
waits, a new one is behind nobody, and may go with its task. What is remembered can be wrong by a few tickets, as when
another orchestrator publishes too; the window is that much larger then, until the relay counts again.
"""


class Room:
    """Counts down what is free in each queue. A queue is short when a ticket of it may be waiting: nothing is free."""

    def __init__(self) -> None:
        self._free: dict[str, int] = {}

    @property
    def is_short(self) -> bool:
        """Say whether there is a queue for which tickets may be waiting."""
        return not all(self._free.values())

    def found(self, queue: str, *, free: int, taken: int) -> None:
        """Note what the relay found: for so many there was room, and so many it took."""
        self._free[queue] = max(0, free - taken)

    def take(self, queue: str) -> bool:
        """Take the place of one ticket, or return False when it must wait for the relay."""
        free = self._free.get(queue, 0)
        if free > 0:
            self._free[queue] = free - 1
        return free > 0

    def give_back(self, queue: str) -> None:
        """A ticket was used up. A short queue stays short until the relay has looked."""
        if self._free.get(queue, 0) > 0:
            self._free[queue] += 1
