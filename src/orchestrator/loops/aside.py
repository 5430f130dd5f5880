"""Work that a loop starts and does not wait for."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Aside:
    """Runs coroutines in the background. A failure is logged; heartbeats and the ends of leases make up for it."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> None:
        """Have it done soon."""
        running = asyncio.create_task(work, name=name)
        self._running.add(running)
        running.add_done_callback(self._ended)

    async def close(self) -> None:
        """Return when everything has ended that was started."""
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, running: asyncio.Task[Any]) -> None:
        self._running.discard(running)
        if not running.cancelled() and (failure := running.exception()) is not None:
            log.error("aside.failed", extra={"work": running.get_name()}, exc_info=failure)
