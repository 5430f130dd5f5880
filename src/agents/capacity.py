"""How much runs at the same time: never more than the agent has slots, whichever way work comes.

Tickets come to a consumer that may hold as many as it has slots, and what was claimed in advance comes beside it. For
each such claim a slot is kept for a while. What has nowhere to run waits for a slot or goes back; it never starts.
"""

import asyncio
from collections import deque
from collections.abc import Callable

# How long work waits for a slot that other work has taken, in seconds: longer than slots are kept for claims, and not
# for long, because there may be an idle agent for it.
PATIENCE = 1.0


class Capacity:
    """Belongs to one event loop. Those who wait are served in the order in which they came.

    `freed` is called when a slot is free and nothing waits for one. `taken` counts how often one was taken.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.freed: Callable[[], None] = lambda: None
        self.taken = 0
        self._running = 0
        self._kept = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        """How many slots run nothing, those that are kept among them."""
        return self.slots - self._running

    def keep(self, count: int) -> None:
        """Keep free slots for claims; the caller takes each of them, or lets it go."""
        self._kept += count

    def let_go(self, count: int) -> None:
        """Keep fewer slots: they are free for all uses."""
        self._kept -= count
        self._serve()

    def take_kept(self) -> None:
        """Take a slot that was kept."""
        self._kept -= 1
        self._take()

    def take(self) -> bool:
        """Take a slot if one is free and not kept; who takes one gives it back with `release`."""
        if self._running + self._kept >= self.slots:
            return False
        self._take()
        return True

    async def take_within(self, seconds: float) -> bool:
        """Take a slot that is free, or the next that becomes free in this time; False when none does."""
        if not self._waiting and self.take():
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except TimeoutError:
            return self._has_got(turn)
        except BaseException:
            if self._has_got(turn):
                self.release()
            raise
        return True

    def release(self) -> None:
        """Give a slot back, or to the one who has waited for the longest."""
        self._running -= 1
        self._serve()
        if self._running + self._kept < self.slots:
            self.freed()

    def _has_got(self, turn: asyncio.Future[None]) -> bool:
        """Return whether a slot was given in the last moment to a caller that waits no longer."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        return turn.done() and not turn.cancelled()

    def _take(self) -> None:
        self._running += 1
        self.taken += 1

    def _serve(self) -> None:
        while self._waiting and self.take():
            turn = self._waiting.popleft()
            if turn.done():
                self._running -= 1
                self.taken -= 1
            else:
                turn.set_result(None)
