"""Follow the file in which a program says where it stands: `echo "40 copying files" > "$CHIFFON_PROGRESS"`.

It is a regular file, which takes whatever is written and never makes a program wait. Only its end is read, at most once
in a second, and only after something was written. A program may remove or replace the file and its folder: anything but
a regular file of its own reports nothing.
"""

import asyncio
import logging
import os
import re
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from agents.attempts.workspace import PROGRESS_FOLDER
from common.loop import Wake

if TYPE_CHECKING:
    from asyncinotify import Inotify, Watch

log = logging.getLogger(__name__)

PROGRESS_VARIABLE = "CHIFFON_PROGRESS"
FILE = "report"
# A program that ends sooner is looked at only then; most do.
FIRST_LOOK = timedelta(seconds=0.5)
# How long a program that has begun to write may take for the rest of it.
SETTLE = timedelta(seconds=0.02)
LOOK_EVERY = timedelta(seconds=1)
# How often a file that was found empty is looked at again, before the next second.
TRIES = 40
READ_BYTES = 16 * 1024
LINE_END = re.compile(rb"[\r\n]")

Take = Callable[[bytes], None]


class ProgressFiles:
    """Follows the files of all attempts. Use it as a context manager."""

    def __init__(self) -> None:
        self._watch = WriteWatch()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.close()

    @asynccontextmanager
    async def followed(self, workspace: Path, take: Take) -> AsyncIterator[None]:
        """Hand what the file in a workspace ends with to `take`: when it has changed, and once more at the end."""
        file = _File(workspace / PROGRESS_FOLDER, self._watch, take)
        try:
            yield
        finally:
            await file.end()


def file_in(workspace: Path) -> Path:
    """Return the file in which a program with this workspace says where it stands."""
    return workspace / PROGRESS_FOLDER / FILE


class _File:
    """The file of one attempt. Its folder stays open, so that a program can put no other in its place."""

    def __init__(self, folder: Path, watch: "WriteWatch", take: Take) -> None:
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self._watch = watch
        self._take = take
        self._bell = Wake()
        self._over = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._due = asyncio.get_running_loop().call_later(FIRST_LOOK.total_seconds(), self._begin)

    async def end(self) -> None:
        """Look once more, for nothing is written any more, and leave."""
        self._due.cancel()
        self._over.set()
        self._bell.ring()
        try:
            if self._following is not None:
                await asyncio.wait({self._following})
            await self._finds_it_empty()
        finally:
            os.close(self._folder)

    def _begin(self) -> None:
        self._following = asyncio.create_task(self._follow(), name="progress file")

    async def _follow(self) -> None:
        now = asyncio.get_running_loop().time
        watch: Watch | None = None
        next_look = now()
        try:
            while not self._over.is_set():
                watch = self._watch.ring_once(self._folder, self._bell)
                # After that, so that nothing written between the two is missed.
                for _ in range(TRIES):
                    if not await self._finds_it_empty():
                        break
                    await self._pause(SETTLE.total_seconds())
                await (self._bell.wait(LOOK_EVERY) if watch is None else self._bell.rung())
                await self._pause(max(SETTLE.total_seconds(), next_look - now()))
                next_look = now() + LOOK_EVERY.total_seconds()
        finally:
            self._watch.forget(watch)

    async def _finds_it_empty(self) -> bool:
        """Look at the file; return whether it is there and holds nothing: its writer may just have emptied it."""
        file = _opened(self._folder)
        if file is None:
            return False
        if os.fstat(file).st_size == 0:
            os.close(file)
            return True
        self._take(await asyncio.to_thread(_end_of, file))
        return False

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()


class WriteWatch:
    """Rings a bell when something in a folder is written: inotify, where the system has it.

    Each watch rings once, so that a program that writes without a pause causes no more events than were asked for.
    """

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._is_tried = False
        self._bells: dict[int, Wake] = {}

    def ring_once(self, folder: int, bell: Wake) -> "Watch | None":
        """Ring at the next write into an open folder; None when nothing will ring, and only looking helps."""
        if not self._is_tried:
            self._open()
        if self._inotify is None:
            return None
        from asyncinotify import Mask

        try:
            watch = self._inotify.add_watch(
                f"/proc/self/fd/{folder}", Mask.MODIFY | Mask.MOVED_TO | Mask.ONLYDIR | Mask.ONESHOT
            )
        except OSError:  # no watch is left for this user, or the program has locked its folder
            return None
        self._bells[watch.wd] = bell
        return watch

    def forget(self, watch: "Watch | None") -> None:
        """Do not ring for this one any more."""
        if watch is not None and self._bells.pop(watch.wd, None) is not None and self._inotify is not None:
            with suppress(OSError):  # it went with its folder
                self._inotify.rm_watch(watch)

    def close(self) -> None:
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    def _open(self) -> None:
        self._is_tried = True
        # The module is for Linux only, and loads functions of the C library; a user's instances are limited.
        try:
            from asyncinotify import Inotify

            self._inotify = Inotify(sync_timeout=0)
        except (ImportError, AttributeError, OSError) as failure:
            log.warning("watch.no_inotify", extra={"reason": str(failure)})
            return
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._read)

    def _read(self) -> None:
        from asyncinotify import Mask

        assert self._inotify is not None
        for event in self._inotify:
            if Mask.Q_OVERFLOW in event.mask:
                for bell in self._bells.values():
                    bell.ring()
            elif event.watch is not None and (rung := self._bells.pop(event.watch.wd, None)) is not None:
                rung.ring()


def _opened(folder: int) -> int | None:
    """Open the file for reading; None while it is no regular file, or one that has another name, too.

    A program may make it a link to what only the agent can read.
    """
    try:
        if not stat.S_ISREG(os.stat(FILE, dir_fd=folder, follow_symlinks=False).st_mode):
            return None
        # Not blocking: meanwhile it may have become something that would never open.
        file = os.open(FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    seen = os.fstat(file)
    if stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1:
        return file
    os.close(file)
    return None


def _end_of(file: int) -> bytes:
    """Return the whole lines at the end of a file, and close it."""
    try:
        start = max(0, os.fstat(file).st_size - READ_BYTES)
        data = os.pread(file, READ_BYTES, start)
    except OSError:
        return b""
    finally:
        os.close(file)
    # A line that has begun before is left out: the beginning of a secret in it would not be known.
    return data if start == 0 else b"".join(LINE_END.split(data, maxsplit=1)[1:])
