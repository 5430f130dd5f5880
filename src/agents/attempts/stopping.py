"""The order to stop one attempt: why, and by when everything that it started must be dead."""

import asyncio
import math
from enum import StrEnum


class StopReason(StrEnum):
    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    AGENT_STOPPING = "agent_stopping"
    NO_SLOT = "no_slot"


class StopSignal:
    """Given at most once in effect: the first reason stays, a later order can only bring the end nearer.

    `kill_at` is the moment, on the event loop's clock, at which whatever still runs is killed; until the order it is
    infinity.
    """

    def __init__(self) -> None:
        self._event: asyncio.Event | None = None
        self._reason: StopReason | None = None
        self._kill_at = math.inf

    @property
    def reason(self) -> StopReason | None:
        return self._reason

    @property
    def kill_at(self) -> float:
        return self._kill_at

    def order(self, reason: StopReason, *, grace: float) -> bool:
        """Order the stop, with `grace` seconds until the kill; say whether it was the first order."""
        self._kill_at = min(self._kill_at, asyncio.get_running_loop().time() + max(grace, 0.0))
        if self._reason is not None:
            return False
        self._reason = reason
        if self._event is not None:
            self._event.set()
        return True

    async def wait(self) -> None:
        """Return when the stop has been ordered."""
        if self._reason is None:
            if self._event is None:  # most work ends without a wait
                self._event = asyncio.Event()
            await self._event.wait()
