"""A system that dies at a certain step, and what a power cut would leave below a folder."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.on_disk import Disk


class Died(BaseException):
    """The process is killed here; nothing of it runs any more."""


class Steps:
    """Counts the steps that change a disk, and dies before the one with the number `last`, and at every later one."""

    def __init__(self, last: int) -> None:
        self._left = last
        self.has_died = False

    def take(self) -> None:
        if self._left == 0:
            self.has_died = True
            raise Died
        self._left -= 1

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.take()
            return call(*arguments, **named)

        return counted

    def opening(self, call: Callable[..., int]) -> Callable[..., int]:
        def counted(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            if flags & os.O_CREAT:
                self.take()
            return call(path, flags, *arguments, **named)

        return counted


@contextmanager
def dying(last: int) -> Iterator[Steps]:
    """Let the process die before a step, inside; `last` counts from 0."""
    steps = Steps(last)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("mkdir", "write", "fsync", "link", "replace", "unlink"):
            patched.setattr(os, name, steps.before(getattr(os, name)))
        patched.setattr(os, "open", steps.opening(os.open))
        yield steps


def left_by_power_cut(disk: Disk, root: Path, into: Path) -> None:
    """Write what is on disk of a folder to another place, where it is on disk, too."""
    into.mkdir()
    for name in disk._names.get(root, {}):
        if (root / name).is_dir():
            left_by_power_cut(disk, root / name, into / name)
        else:
            (into / name).write_bytes(disk.read(root / name) or b"")
            _sync(disk, into / name)
    _sync(disk, into)


def _sync(disk: Disk, path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        disk.fsync(handle)
    finally:
        os.close(handle)
