"""Turn SIGTERM and Ctrl-C into an orderly end."""

import asyncio
import signal
from collections.abc import Awaitable, Callable


def run_until_stopped(work: Callable[[], Awaitable[int]], *, when_stopped: int = 0) -> int:
    """Run `work` and return its exit status, or `when_stopped` when a signal stopped it and it has cleaned up.

    The signal cancels the work; a second one cancels its cleaning up, which then kills instead of waiting.
    """
    return asyncio.run(_until_stopped(work, when_stopped))


async def _until_stopped(work: Callable[[], Awaitable[int]], when_stopped: int) -> int:
    running = asyncio.ensure_future(work())
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        running.cancel()

    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    try:
        return await running
    except asyncio.CancelledError:
        if stopped:
            return when_stopped
        raise
