"""A directory of its own for each attempt."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from uuid import UUID


class Workspaces:
    """Makes and removes the directories `<root>/<task_id>-<attempt>`, which only the agent's user can enter."""

    def __init__(self, root: Path, *, keep: bool = False) -> None:
        self._root = root
        self._keep = keep

    def open(self, task_id: UUID, attempt: int, *, is_needed: bool = True) -> AbstractAsyncContextManager[Path]:
        """Give an attempt an empty directory; it is removed afterwards unless workspaces are kept.

        When none is needed, only its name is given.
        """
        path = self._root / f"{task_id}-{attempt}"
        return self._made(path) if is_needed else nullcontext(path)

    @asynccontextmanager
    async def _made(self, path: Path) -> AsyncIterator[Path]:
        # In threads, although each is one system call: it may wait for the file system to bring others' files to disk.
        await asyncio.to_thread(self._make, path)
        try:
            yield path
        finally:
            if not self._keep:
                await asyncio.to_thread(_remove, path)

    def _make(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:  # of an earlier life of this agent
            _remove(path)
            path.mkdir(mode=0o700)
        except FileNotFoundError:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.mkdir(mode=0o700)

    def remove_leftovers(self) -> int:
        """Remove what a crash left behind, unless workspaces are kept; return how many there were."""
        if self._keep or not self._root.exists():
            return 0
        leftovers = [path for path in self._root.iterdir() if path.is_dir()]
        for path in leftovers:
            _remove(path)
        return len(leftovers)


def _remove(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:  # not empty
        shutil.rmtree(path, ignore_errors=True)
