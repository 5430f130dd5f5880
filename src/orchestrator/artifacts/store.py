"""The folder that holds what is kept: each content once, by its digest, and by name for people.

    blobs/<first two digits>/<SHA-256>     the content
    workflow_runs/<run or task>/<path>     a hard link to it
    drafts/<random name>                   what is being written

A name appears only when what it names is on disk, so that a crash leaves drafts and nothing half. Several processes
may use one folder. Folders are opened one by one, and a symbolic link among them is refused: whatever stands there,
nothing is written or read outside of it.
"""

import asyncio
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

from common.durable import sync, sync_folder, write_all
from common.errors import ChiffonError, Conflict, ErrorCode, NotFound, Unavailable
from common.private import make_private
from orchestrator.artifacts.model import AWAY

T = TypeVar("T")

BLOBS, NAMED, DRAFTS = "blobs", "workflow_runs", "drafts"

# A store that hangs holds up no more than these, and whoever waits for one of them no longer than this.
THREADS = 4
ANSWER_SECONDS = 60.0
# Nobody writes for so long into one draft without adding to it.
STALE_DRAFT = timedelta(days=1)
COPY_BYTES = 1024 * 1024

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IN_THE_WAY = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG)
# A file system without hard links, or a content that has as many names as it may have.
_NO_LINK = (errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


class StoreProblem(ChiffonError):
    """The store did not do what was asked of it; `reason` says why, as a part of a sentence."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason[:1].upper()}{reason[1:]}.")
        self.reason = reason


class StoreAway(StoreProblem, Unavailable):
    """The folder cannot be used right now, or its disk has no room, which may change."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{AWAY}: {why}")


class PlaceTaken(StoreProblem, Conflict):
    """Something that the store did not put there stands where a file or folder belongs."""

    def __init__(self, why: str) -> None:
        super().__init__(f"something else stands where it belongs in the store: {why}")


class ContentGone(StoreProblem, NotFound):
    """A content that was stored is not there any more, or not whole."""

    code = ErrorCode.ARTIFACT_NOT_FOUND

    def __init__(self, sha256: str) -> None:
        super().__init__(f"the content with the SHA-256 {sha256} is gone from the store")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__


@contextmanager
def _explained() -> Iterator[None]:
    """Tell what an error of the system means for the store."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreAway(f"its disk is full: {_reason(error)}") from error
        if error.errno in _IN_THE_WAY:
            raise PlaceTaken(_reason(error)) from error
        if error.errno == errno.EXDEV:
            raise StoreAway(f"{BLOBS}, {NAMED} and {DRAFTS} must be on one file system") from error
        raise StoreAway(_reason(error)) from error


class Draft:
    """A content that is being written and has no name yet. Threads may use it one after another, never at once."""

    def __init__(self, folder: int, name: str) -> None:
        self.name = name
        self.size = 0
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()
        self._handle: int | None = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400, dir_fd=folder
        )

    @property
    def sha256(self) -> str:
        """The digest of what was written."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Add to the content. Raises `StoreAway`."""
        with self._lock, _explained():
            if self._handle is None:  # it was given up meanwhile
                return
            write_all(self._handle, data)
            self._digest.update(data)
            self.size += len(data)

    def seal(self) -> None:
        """Bring the content to disk. Raises `StoreAway`."""
        with self._lock, _explained():
            if self._handle is not None:
                sync(self._handle)

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def __del__(self) -> None:
        # Nobody got it: whoever waited for the thread that made it was cancelled.
        if hasattr(self, "_handle"):
            self.close()


class Content:
    """The content of a file that is open for reading."""

    def __init__(self, handle: int, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._handle: int | None = handle

    def read(self, offset: int, size: int) -> bytes:
        """Return so many bytes from there on, fewer at the end. Raises `StoreAway`."""
        with self._lock, _explained():
            return b"" if self._handle is None else os.pread(self._handle, size, offset)

    def close(self) -> None:
        """Read no more."""
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def __del__(self) -> None:
        # Nobody got it: whoever waited for the thread that opened it was cancelled.
        self.close()


class Store:
    """Keeps contents below one folder. Its methods block; `run` calls one of them in a thread of the store."""

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self._is_made = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="artifacts")

    async def run(self, work: Callable[[], T], *, within: float | None = None) -> T:
        """Call something in a thread of the store, and raise what it raises; `StoreAway` when that takes too long.

        `within` is how many seconds are waited, by default `ANSWER_SECONDS`. The thread goes on.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS if within is None else within):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            raise StoreAway("it does not answer") from None

    def submit(self, work: Callable[[], object]) -> None:
        """Have something done that nobody waits for."""
        try:
            self._threads.submit(work)
        except RuntimeError:  # the store is closed, and this is what is left to do
            work()

    def close(self) -> None:
        """Start nothing more; what a disk does not answer is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def draft(self) -> Draft:
        """Return a new draft. Raises `StoreAway` and `PlaceTaken`."""
        with _explained():
            self._make()
            with self._folder(DRAFTS) as drafts:
                return Draft(drafts, uuid4().hex)

    def discard(self, draft: Draft) -> None:
        """Forget a draft; one that was kept is not touched by that."""
        draft.close()
        with suppress(OSError), self._folder(DRAFTS) as drafts:
            os.unlink(draft.name, dir_fd=drafts)

    def keep(self, draft: Draft) -> None:
        """Give a sealed draft its place by its digest, on disk when this returns; what is there already stays.

        Raises `StoreAway` and `PlaceTaken`.
        """
        sha256 = draft.sha256
        with _explained(), self._folder(DRAFTS) as drafts, self._folder(BLOBS, sha256[:2], make=True) as folder:
            if _size(folder, sha256) != draft.size:
                _give_name(drafts, draft, folder, sha256)
            # Also when it was there: whoever put it there may have died before this.
            sync(folder)

    def give_path(self, sha256: str, folder: UUID, path: str) -> None:
        """Link a kept content below the folder of a run or task, on disk when this returns.

        Whatever file stands at that path is replaced. Raises `StoreAway` and `PlaceTaken`.
        """
        *above, name = _parts(path)
        with (
            _explained(),
            self._folder(BLOBS, sha256[:2]) as blobs,
            self._folder(DRAFTS) as drafts,
            self._folder(NAMED, str(folder), *above, make=True) as place,
        ):
            if not _is_same(blobs, sha256, place, name):
                draft = uuid4().hex
                _link_or_copy(blobs, sha256, drafts, draft)
                try:
                    os.replace(draft, name, src_dir_fd=drafts, dst_dir_fd=place)
                except OSError:
                    os.unlink(draft, dir_fd=drafts)
                    raise
            sync(place)

    def take_path(self, folder: UUID, path: str) -> None:
        """Remove a path below the folder of a run or task, and the folders that are empty then.

        What is not there is removed. Raises `StoreAway` and `PlaceTaken`.
        """
        above = [str(folder), *_parts(path)]
        # A store that is away is told from one without the path.
        with _explained(), self._folder(NAMED), suppress(FileNotFoundError):
            name = above.pop()
            with self._folder(NAMED, *above) as place:
                os.unlink(name, dir_fd=place)
                sync(place)
            while above:
                name = above.pop()
                with self._folder(NAMED, *above) as place:
                    try:
                        os.rmdir(name, dir_fd=place)
                    except OSError as error:
                        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                            break
                        raise

    def remove(self, sha256: str) -> None:
        """Remove a content; one that is not there is removed. Raises `StoreAway` and `PlaceTaken`."""
        # A store that is away is told from one without the content.
        with _explained(), self._folder(BLOBS), suppress(FileNotFoundError), self._folder(BLOBS, sha256[:2]) as folder:
            os.unlink(sha256, dir_fd=folder)
            sync(folder)

    def read(self, sha256: str, size: int, offset: int, most: int) -> bytes:
        """Return a part of a content of that size. Raises what `open` raises."""
        content = self.open(sha256, size)
        try:
            return content.read(offset, most)
        finally:
            content.close()

    def open(self, sha256: str, size: int) -> Content:
        """Return a content for reading. Raises `ContentGone`, `StoreAway` and `PlaceTaken`."""
        with _explained(), self._folder(BLOBS) as blobs:
            try:
                folder = os.open(sha256[:2], _FOLDER | os.O_NOFOLLOW, dir_fd=blobs)
                try:
                    # What is no file must not keep this waiting.
                    handle = os.open(sha256, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                finally:
                    os.close(folder)
            except FileNotFoundError:
                raise ContentGone(sha256) from None
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            os.close(handle)
            raise ContentGone(sha256)
        return Content(handle, size)

    def sweep(self, now: float) -> int:
        """Remove drafts that nobody writes to any more; return how many. Raises `StoreAway` and `PlaceTaken`."""
        if not self._is_made:
            return 0
        removed = 0
        with _explained(), self._folder(DRAFTS) as drafts:
            for name in os.listdir(drafts):  # noqa: PTH208 - an open folder has no path
                with suppress(FileNotFoundError):
                    last = os.stat(name, dir_fd=drafts, follow_symlinks=False).st_ctime
                    if now - last > STALE_DRAFT.total_seconds():
                        os.unlink(name, dir_fd=drafts)
                        removed += 1
        return removed

    def _make(self) -> None:
        """Make the folders, once: one that is gone later was taken away with everything in it."""
        if self._is_made:
            return
        make_private(self._root)
        sync_folder(self._root.parent)
        with self._folder() as root:
            for name in (BLOBS, NAMED, DRAFTS):
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=root)
            sync(root)
        self._is_made = True

    @contextmanager
    def _folder(self, *names: str, make: bool = False) -> Iterator[int]:
        """Open a folder below the root. With `make`, those below the first are made, and their names are on disk."""
        with ExitStack() as stack:
            handle = os.open(self._root, _FOLDER)
            stack.callback(os.close, handle)
            for depth, name in enumerate(names):
                if make and depth:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=handle)
                    # Also when it was there: whoever made it may have died before this.
                    sync(handle)
                handle = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=handle)
                stack.callback(os.close, handle)
            yield handle


def _parts(path: str) -> list[str]:
    """Return the parts of a path below a folder; raises ValueError for one that may lead out of it."""
    parts = path.split("/")
    if "\x00" in path or not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError(f"{path!r} is no path below a folder")
    return parts


def _size(folder: int, name: str) -> int | None:
    """Return the size of a file; None when there is none, or something else."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _is_same(folder: int, name: str, other_folder: int, other_name: str) -> bool:
    """Return whether two names are those of one file."""
    one = os.stat(name, dir_fd=folder, follow_symlinks=False)
    try:
        other = os.stat(other_name, dir_fd=other_folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _give_name(drafts: int, draft: Draft, folder: int, name: str) -> None:
    """Give a draft a name that is free, or that something damaged has."""
    try:
        os.link(draft.name, name, src_dir_fd=drafts, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (*_NO_LINK, errno.EEXIST):
            raise
        # Another process that stored the same just now keeps the one file that others have linked to.
        if _size(folder, name) != draft.size:
            os.replace(draft.name, name, src_dir_fd=drafts, dst_dir_fd=folder)


def _link_or_copy(blobs: int, sha256: str, drafts: int, draft: str) -> None:
    """Give a content another name, or a copy where the file system gives it no more names."""
    try:
        os.link(sha256, draft, src_dir_fd=blobs, dst_dir_fd=drafts, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy(blobs, sha256, drafts, draft)


def _copy(blobs: int, sha256: str, drafts: int, draft: str) -> None:
    source = os.open(sha256, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=blobs)
    try:
        copy = Draft(drafts, draft)
        try:
            while data := os.read(source, COPY_BYTES):
                copy.write(data)
            copy.seal()
        finally:
            copy.close()
    finally:
        os.close(source)
