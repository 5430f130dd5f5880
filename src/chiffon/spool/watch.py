"""Ring when a file is dropped: inotify, where the system has it; without it the spool only polls."""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from common.loop import Wake

if TYPE_CHECKING:
    from asyncinotify import Inotify, Watch

log = logging.getLogger(__name__)


class FolderWatch:
    """Rings a bell when a file is moved into a folder, or closed there after it was written."""

    def __init__(self, folder: Path, bell: Wake) -> None:
        self._folder = folder
        self._bell = bell
        self._inotify: Inotify | None = None
        self._watch: Watch | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_watching(self) -> bool:
        """Whether a dropped file rings now."""
        return self._watch is not None

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

    def watch(self) -> None:
        """Begin to watch the folder; nothing happens while there is none, or when it is watched already."""
        if self._inotify is None or self._watch is not None:
            return
        from asyncinotify import Mask

        mask = Mask.MOVED_TO | Mask.CLOSE_WRITE | Mask.MOVE_SELF | Mask.ONLYDIR
        try:
            self._watch = self._inotify.add_watch(self._folder, mask)
        except FileNotFoundError:
            return
        except OSError as failure:
            log.warning("watch.no_inotify", extra={"reason": str(failure)})
            self._stop()

    async def _read(self, inotify: "Inotify") -> None:
        from asyncinotify import Mask

        async for event in inotify:
            if Mask.Q_OVERFLOW not in event.mask:
                if event.watch is None or event.watch is not self._watch:
                    continue  # of a folder that was moved away
                if event.mask & (Mask.MOVE_SELF | Mask.IGNORED):
                    self._watch = None  # a new folder of its name is another one
            self._bell.ring()

    def _stop(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
        self._inotify = None
        self._watch = None
