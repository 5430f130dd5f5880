"""Work that was claimed in advance: it comes by itself, and begins at once, or soon, or goes back."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from agents.attempts import Attempt, Attempts
from agents.availability import Availability
from agents.capacity import PATIENCE, Capacity
from agents.stopping import StopReason

log = logging.getLogger(__name__)


class GivenWork:
    """Runs attempts that no ticket came for, each in a slot. `ended` is called when one of them is over."""

    def __init__(
        self,
        run: Callable[[Attempt], Coroutine[Any, Any, None]],
        capacity: Capacity,
        availability: Availability,
        attempts: Attempts,
    ) -> None:
        self._run = run
        self._capacity = capacity
        self._availability = availability
        self._attempts = attempts
        self._running: set[asyncio.Task[None]] = set()
        self.ended: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, attempt: Attempt, *, has_slot: bool) -> bool:
        """Run an attempt in the slot that is kept for it, or the next that is free; False when the agent takes no work.

        When there is none soon it goes back untouched.
        """
        if not self._availability.is_open:
            if has_slot:
                self._capacity.let_go(1)
            return False
        # Known from here on, so that a cancel that follows in the same breath finds it.
        self._attempts.add(attempt)
        if has_slot:
            self._capacity.take_kept()
        running = asyncio.create_task(self._do(attempt, has_slot=has_slot), name="given work")
        self._running.add(running)
        running.add_done_callback(self._over)
        return True

    async def stop(self) -> None:
        """Cancel what still runs, and return when it has ended."""
        running = list(self._running)
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _do(self, attempt: Attempt, *, has_slot: bool) -> None:
        has_slot = has_slot or await self._capacity.take_within(PATIENCE)
        if not has_slot:
            attempt.stop.order(StopReason.NO_SLOT, grace=0)
        try:
            await self._run(attempt)
        finally:
            if has_slot:
                self._capacity.release()

    def _over(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        self.ended()
        if not self._availability.is_open:
            self._availability.changed.ring()
        if not running.cancelled() and (failure := running.exception()) is not None:
            log.error("work.lost", exc_info=failure)
