"""Files that work keeps, on disk until the orchestrator has stored them.

Each content is stored once, in a file that is named by its SHA-256. Each line of `index.jsonl` names the attempt that
kept a content, or that the orchestrator has stored it. Blocking: call it in a thread.

A file is on disk, with its name and its line, when `keep` returns. A crash before that leaves at most a draft, or a
file that no line names: both go at the next start.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Annotated, Literal, NamedTuple
from uuid import UUID, uuid4

from pydantic import Field, TypeAdapter, ValidationError

from agents.artifacts.copying import copy_without_secrets
from agents.artifacts.matching import Unusable
from common.artifacts import ArtifactName, ArtifactType, Sha256
from common.durable import sync, sync_folder, write_all, write_file
from common.messages import AttemptNumber, ByteCount, Message
from common.redaction.values import Values

log = logging.getLogger(__name__)

INDEX = "index.jsonl"
DRAFT = ".draft-"
# An index that is larger, and mostly about what is gone, is written anew.
INDEX_BYTES = 1024 * 1024
# So much of the disk stays free: results must find room on it.
RESERVED_BYTES = 64 * 1024 * 1024
DIGEST_LETTERS = 64


class Owner(NamedTuple):
    """The attempt that a file belongs to, and the dispatch that it came from, as far as that is known."""

    task_id: UUID
    attempt: int
    trace_id: UUID | None = None
    request_id: UUID | None = None


class ArtifactKey(NamedTuple):
    """Which file: an attempt has one of a name at most."""

    task_id: UUID
    attempt: int
    name: str


class Artifact(Message):
    """A file that is kept; what leaves this host has this digest and size."""

    event: Literal["kept"] = "kept"
    task_id: UUID
    attempt: AttemptNumber
    trace_id: UUID | None = None
    request_id: UUID | None = None
    name: ArtifactName
    type: ArtifactType
    sha256: Sha256
    size: ByteCount

    @property
    def key(self) -> ArtifactKey:
        return ArtifactKey(self.task_id, self.attempt, self.name)

    @property
    def owner(self) -> Owner:
        return Owner(self.task_id, self.attempt, self.trace_id, self.request_id)


class _Gone(Message):
    """These are stored, or can never be."""

    event: Literal["gone"] = "gone"
    task_id: UUID
    attempt: AttemptNumber
    names: list[str] = Field(min_length=1)


_LINE: TypeAdapter[Artifact | _Gone] = TypeAdapter(Annotated[Artifact | _Gone, Field(discriminator="event")])


class ArtifactSpool:
    """The files of one agent that may not be stored yet. `limit` is for one of them, `total` for all that wait."""

    def __init__(self, folder: Path, *, limit: int, total: int) -> None:
        self._folder = folder
        self._limit = limit
        self._total = total
        self._kept: dict[ArtifactKey, Artifact] = {}
        # How many of those name a digest.
        self._uses: dict[str, int] = {}
        self._bytes = 0
        self._index: int | None = None
        self._is_torn = False
        self._lock = Lock()

    def open(self) -> list[Artifact]:
        """Make the folder if there is none, put in order what an earlier life left, and return what it owes.

        Raises `OSError`.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sizes = {path.name: path.stat().st_size for path in self._folder.iterdir() if len(path.name) == DIGEST_LETTERS}
        for artifact in self._left():
            if sizes.get(artifact.sha256) == artifact.size:
                self._enter(artifact)
            else:
                log.warning("artifact.lost", extra={"task_id": artifact.task_id, "artifact": artifact.name})
        try:
            self._write_index()
        except OSError as failure:  # a full disk, from which what is owed must still be sent
            log.exception("artifact.index_not_written", extra={"reason": str(failure)})
            self._open_index()
        for name in (*sizes, *(path.name for path in self._folder.glob(f"{DRAFT}*"))):
            if name not in self._uses:
                (self._folder / name).unlink()
        return list(self._kept.values())

    def close(self) -> None:
        with self._lock:
            self._close_index()

    def keep(self, source: int, name: str, type: str, owner: Owner, values: Values) -> Artifact:
        """Bring the content of an open file to disk, without the secrets in it, and return what is kept.

        Raises `Unusable` for what is not to be kept, and `OSError`; then nothing is.
        """
        draft = self._folder / f"{DRAFT}{uuid4().hex}"
        try:
            self._check_room(min(os.fstat(source).st_size, self._limit))
            target = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                copied = copy_without_secrets(source, target, values, limit=self._limit)
                sync(target)
            finally:
                os.close(target)
            artifact = Artifact(**owner._asdict(), name=name, type=type, sha256=copied.sha256, size=copied.size)
            with self._lock:
                return self._take(artifact, draft)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)

    def read(self, artifact: Artifact, offset: int, size: int) -> bytes:
        """Return bytes of a file that is kept. Raises `OSError`, also when they are not there."""
        handle = os.open(self._folder / artifact.sha256, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(handle, size, offset)
        finally:
            os.close(handle)
        if len(data) != min(size, artifact.size - offset):
            raise OSError(f"{artifact.sha256} has fewer bytes than it had")
        return data

    def forget(self, keys: Iterable[ArtifactKey]) -> None:
        """Remove what is owed no more. A removal that a crash undoes only means that it is sent once more."""
        with self._lock:
            gone = [artifact for key in keys if (artifact := self._kept.pop(key, None)) is not None]
            try:
                if gone and self._index is not None:
                    self._note_gone(gone)
            except OSError as failure:
                log.exception("artifact.not_forgotten", extra={"artifacts": len(gone), "reason": str(failure)})
            for artifact in gone:
                self._leave(artifact)

    def _left(self) -> Iterator[Artifact]:
        """Return what the index says is owed, the oldest first; a line that a crash tore says nothing."""
        try:
            content = (self._folder / INDEX).read_bytes()
        except FileNotFoundError:
            return
        left: dict[ArtifactKey, Artifact] = {}
        for line in filter(None, content.split(b"\n")):
            try:
                meaning = _LINE.validate_json(line)
            except ValidationError as failure:
                log.warning("artifact.unreadable_line", extra={"problems": failure.error_count()})
                continue
            if isinstance(meaning, Artifact):
                left[meaning.key] = meaning
                continue
            for name in meaning.names:
                left.pop(ArtifactKey(meaning.task_id, meaning.attempt, name), None)
        yield from left.values()

    def _check_room(self, size: int) -> None:
        found = os.statvfs(self._folder)
        if found.f_bavail * found.f_frsize - size < RESERVED_BYTES:
            raise Unusable("the disk on which this agent keeps files has no room for it")

    def _take(self, artifact: Artifact, draft: Path) -> Artifact:
        before = self._kept.get(artifact.key)
        if before is not None:
            if before.sha256 != artifact.sha256:
                raise Unusable("there is another file of that name")
            return before
        is_new = artifact.sha256 not in self._uses
        if is_new and self._bytes + artifact.size > self._total:
            raise Unusable(
                f"{self._bytes} bytes of other files wait to be sent, and with it there would be more than "
                f"{self._total} (max_artifacts_bytes)"
            )
        place = self._folder / artifact.sha256
        try:
            if is_new:
                draft.replace(place)
                sync_folder(self._folder)
            self._append(artifact.model_dump_json(), is_durable=True)
        except OSError:
            if is_new:
                with suppress(OSError):
                    place.unlink(missing_ok=True)
            raise
        self._enter(artifact)
        return artifact

    def _enter(self, artifact: Artifact) -> None:
        self._kept[artifact.key] = artifact
        uses = self._uses.get(artifact.sha256, 0)
        self._uses[artifact.sha256] = uses + 1
        if uses == 0:
            self._bytes += artifact.size

    def _leave(self, artifact: Artifact) -> None:
        self._uses[artifact.sha256] -= 1
        if self._uses[artifact.sha256]:
            return
        del self._uses[artifact.sha256]
        self._bytes -= artifact.size
        try:
            (self._folder / artifact.sha256).unlink(missing_ok=True)
        except OSError as failure:
            log.exception("artifact.not_removed", extra={"sha256": artifact.sha256, "reason": str(failure)})

    def _note_gone(self, gone: Iterable[Artifact]) -> None:
        names: dict[tuple[UUID, int], list[str]] = {}
        for artifact in gone:
            names.setdefault((artifact.task_id, artifact.attempt), []).append(artifact.name)
        for (task_id, attempt), some in names.items():
            self._append(_Gone(task_id=task_id, attempt=attempt, names=some).model_dump_json(), is_durable=False)
        assert self._index is not None
        if not self._kept or os.fstat(self._index).st_size > INDEX_BYTES * (1 + len(self._kept) // 1000):
            self._write_index()

    def _append(self, line: str, *, is_durable: bool) -> None:
        assert self._index is not None
        # After a write that failed half-way, the next line must not become part of its remains.
        data = (b"\n" if self._is_torn else b"") + line.encode() + b"\n"
        self._is_torn = True
        write_all(self._index, data)
        if is_durable:
            sync(self._index)
        self._is_torn = False

    def _write_index(self) -> None:
        """Write the index anew, with what is owed."""
        path = self._folder / INDEX
        write_file(path, b"".join(one.model_dump_json().encode() + b"\n" for one in self._kept.values()))
        self._open_index()
        self._is_torn = False

    def _close_index(self) -> None:
        if self._index is not None:
            os.close(self._index)
            self._index = None

    def _open_index(self) -> None:
        self._close_index()
        self._index = os.open(self._folder / INDEX, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._is_torn = True  # the last line may be
