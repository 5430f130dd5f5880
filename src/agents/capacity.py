"""How much runs at the same time: never more than the agent has slots, whichever way work comes.

Tickets come to a consumer that may hold as many as it has slots, and what was claimed in advance comes beside it. So
for a moment there can be more work than slots. What has nowhere to run waits for a slot or goes back; it never starts.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class Capacity:
    """Belongs to one event loop. Those who wait are served in the order in which they came.

    `freed` is called when a slot is free for which nobody waits. `taken` counts how often one was taken.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.freed: Callable[[], None] = lambda: None
        self.taken = 0
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def free(self) -> int:
        return self.slots - self._running

    def take(self) -> bool:
        """Take a slot if one is free; who takes one gives it back with `release`."""
        if self._running >= self.slots:
            return False
        self._running += 1
        self.taken += 1
        return True

    async def take_within(self, seconds: float) -> bool:
        """Take a slot that is free, or the next that becomes free in this time; False when none does."""
        if self.take():
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except TimeoutError:
            return False
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.release()
            raise
        return True

    def release(self) -> None:
        """Give a slot back, or to the one who has waited for the longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self.taken += 1
                return
        self._running -= 1
        self.freed()
