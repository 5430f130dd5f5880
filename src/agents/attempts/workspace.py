"""A directory of its own for each attempt."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path
from uuid import UUID, uuid4

from agents.attempts.removal import remove_tree

log = logging.getLogger(__name__)

# A leftover that cannot be removed is renamed, so that no attempt finds it in its place; each start tries it again.
ASIDE = ".aside-"
# In each directory, for the file in which a program says where it stands; see `agents.output.progress_file`.
PROGRESS_FOLDER = ".progress"


class Workspaces:
    """Makes and removes the directories `<root>/<task_id>-<attempt>`, which only the agent's user can enter."""

    def __init__(self, root: Path, *, keep: bool = False) -> None:
        self._root = root
        self._keep = keep

    def open(self, task_id: UUID, attempt: int, *, is_needed: bool = True) -> AbstractAsyncContextManager[Path]:
        """Give an attempt an empty directory, but for `PROGRESS_FOLDER`; it is removed afterwards unless workspaces are
        kept.

        When none is needed, only its name is given. What cannot be removed is logged and set aside: it is the host's
        trouble, and changes nothing about how the attempt ended.
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
                await asyncio.to_thread(self._discard, path)

    def _make(self, path: Path) -> None:
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:  # of an earlier life of this agent
            self._discard(path)
            path.mkdir(mode=0o700)
        except FileNotFoundError:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.mkdir(mode=0o700)
        (path / PROGRESS_FOLDER).mkdir(mode=0o700)

    def remove_leftovers(self) -> int:
        """Remove what a crash left behind, unless workspaces are kept; return how many are gone."""
        if self._keep or not self._root.exists():
            return 0
        return sum(self._discard(path) for path in list(self._root.iterdir()))

    def _discard(self, path: Path) -> bool:
        """Remove a directory, or what is in its place, or set it aside; return whether it is gone."""
        try:
            remove_tree(path)
        except OSError as error:
            aside = path if path.name.startswith(ASIDE) else self._root / f"{ASIDE}{uuid4()}"
            with suppress(OSError):
                path.rename(aside)
            log.warning("workspace.not_removed", extra={"path": str(path), "aside": str(aside), "reason": str(error)})
            return False
        return True
