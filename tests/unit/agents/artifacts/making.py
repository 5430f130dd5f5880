"""Files to keep, and the attempts that they belong to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from agents.artifacts.spool import Artifact, ArtifactSpool, Owner
from common.redaction.values import Values

AGENT = UUID(int=7)
LIMIT, TOTAL = 4 * 1024 * 1024, 16 * 1024 * 1024


def make_owner(number: int = 1, *, attempt: int = 1) -> Owner:
    return Owner(UUID(int=number), attempt, UUID(int=1000 + number), UUID(int=2000 + number))


def make_spool(folder: Path, *, limit: int = LIMIT, total: int = TOTAL) -> ArtifactSpool:
    spool = ArtifactSpool(folder / "artifacts", limit=limit, total=total)
    spool.open()
    return spool


@contextmanager
def opened(content: bytes, folder: Path) -> Iterator[int]:
    """A file with this content, open."""
    path = folder / "source"
    path.write_bytes(content)
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def keep(
    spool: ArtifactSpool,
    content: bytes,
    folder: Path,
    *,
    name: str = "out.txt",
    owner: Owner | None = None,
    values: Values | None = None,
) -> Artifact:
    with opened(content, folder) as source:
        return spool.keep(source, name, "file", owner or make_owner(), values or Values())


def owed(folder: Path) -> list[Artifact]:
    """Return what the index says is owed, without touching it."""
    return list(ArtifactSpool(folder / "artifacts", limit=LIMIT, total=TOTAL)._left())


def reopened(folder: Path) -> list[Artifact]:
    """Return what a next life of the agent owes when it has put everything in order."""
    spool = ArtifactSpool(folder / "artifacts", limit=LIMIT, total=TOTAL)
    try:
        return spool.open()
    finally:
        spool.close()
