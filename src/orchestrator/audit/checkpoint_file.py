"""The file of checkpoints: only ever appended to, and on disk when `append` returns."""

import errno
import os
from collections.abc import Iterator, Mapping
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from common.durable import sync_folder
from common.signing.keys import PublicKey
from orchestrator.audit.checkpoints import CheckpointsUnusable, check_signature, line_of, parse
from orchestrator.audit.model import Checkpoint

# Lines are about 400 bytes long.
TAIL_BYTES = 4096


class CheckpointFile:
    """Appends to one file. One orchestrator writes it; several need one each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> Checkpoint | None:
        """Make the file if there is none, take away a line that a crash cut off, and return the last checkpoint.

        Raises `CheckpointsUnusable`.
        """
        try:
            with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b") as file:
                size = file.seek(0, os.SEEK_END)
                start = file.seek(max(0, size - TAIL_BYTES))
                tail = file.read()
                whole = tail[: tail.rfind(b"\n") + 1]
                if not whole and start:
                    raise CheckpointsUnusable(f"{self.path} does not end with a checkpoint.")
                file.truncate(start + len(whole))
            sync_folder(self.path.parent)
        except OSError as error:
            raise CheckpointsUnusable(f"{self.path} cannot be written: {error.strerror or error}.") from error
        lines = whole.splitlines()
        return _parsed(self.path, "its last line", lines[-1]) if lines else None

    def append(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint behind the others, and wait until it is on disk. Raises OSError."""
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "wb", buffering=0) as file:
            size = os.fstat(handle).st_size
            try:
                _write_whole(file, line_of(checkpoint))
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)
                raise


def read_checkpoints(path: Path, keys: Mapping[str, PublicKey] | None) -> Iterator[Checkpoint]:
    """Yield the checkpoints that a file holds now, one at a time; with None the signatures are not looked at.

    Raises `CheckpointsUnusable`, also while they are read. A last line without an end was cut off by a crash.
    """
    try:
        # Opened and measured at once: what is appended later may be about events that the reader does not see.
        file = path.open("rb")
    except OSError as error:
        raise CheckpointsUnusable(f"{path} cannot be read: {error.strerror or error}.") from error
    return _read(path, file, os.fstat(file.fileno()).st_size, keys)


def _read(path: Path, file: BinaryIO, size: int, keys: Mapping[str, PublicKey] | None) -> Iterator[Checkpoint]:
    with file:
        number, last = 0, -1
        while file.tell() < size and (line := file.readline()).endswith(b"\n"):
            number += 1
            found = _parsed(path, f"line {number}", line)
            wrong = check_signature(found, keys) if keys is not None else None
            if wrong is None and found.seq < last:
                wrong = "it is about an earlier event than the one before it"
            if wrong is not None:
                raise CheckpointsUnusable(f"{path}, line {number} (event {found.seq}): {wrong}.")
            last = found.seq
            yield found


def _write_whole(file: RawIOBase, line: bytes) -> None:
    if file.write(line) != len(line):
        raise OSError(errno.ENOSPC, "the disk took a part of the line only")


def _parsed(path: Path, where: str, line: bytes) -> Checkpoint:
    try:
        return parse(line)
    except ValueError as error:
        raise CheckpointsUnusable(f"{path}, {where}: this is no checkpoint ({error}).") from None
