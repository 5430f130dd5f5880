"""Ring when a file appears: inotify, where the system has it; without it consumers only poll."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncinotify import Inotify

log = logging.getLogger(__name__)


class FolderWatch:
    """Watches folders from when they are asked for until they are gone."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._inotify: Inotify | None = None
        self._watched: dict[int, str] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def works(self) -> bool:
        """False when nothing will ever ring, so that whoever waits must poll."""
        return self._inotify is not None

    def open(self) -> None:
        # The module is for Linux only, and loads functions of the C library; a user's instances are limited.
        try:
            from asyncinotify import Inotify

            self._inotify = Inotify()
        except (ImportError, AttributeError, OSError) as failure:
            log.warning("watch.no_inotify", extra={"reason": str(failure)})
            return
        self._task = asyncio.create_task(self._read(self._inotify), name="folder_watch")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._stop()

    def watch(self, queue: str, folder: Path) -> None:
        """Ring for a queue when a file is moved into its folder; nothing happens while there is no such folder."""
        if self._inotify is None or queue in self._watched.values():
            return
        from asyncinotify import Mask

        try:
            watch = self._inotify.add_watch(folder, Mask.MOVED_TO | Mask.CLOSE_WRITE | Mask.MOVE_SELF | Mask.ONLYDIR)
        except FileNotFoundError:
            return
        except OSError as failure:
            # Without a watch for each queue, deafness would go unnoticed; polling is slower, and safe.
            log.warning("watch.no_inotify", extra={"reason": str(failure)})
            self._stop()
            return
        self._watched[watch.wd] = queue

    async def _read(self, inotify: "Inotify") -> None:
        from asyncinotify import Mask

        async for event in inotify:
            if Mask.Q_OVERFLOW in event.mask:
                for queue in set(self._watched.values()):
                    self._changed(queue)
                continue
            watch = event.watch
            queue_or_none = None if watch is None else self._watched.get(watch.wd)
            if watch is None or queue_or_none is None:
                continue
            if event.mask & (Mask.MOVE_SELF | Mask.IGNORED):
                # The queue was deleted; a new one of its name is another folder.
                self._watched.pop(watch.wd, None)
            self._changed(queue_or_none)

    def _stop(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        self._inotify = None
        self._watched.clear()
