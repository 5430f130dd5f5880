"""The message files of all queues: written whole, claimed by renaming, given back as they were. Blocking.

queues/NAME/incoming/            what waits
queues/NAME/processing/SESSION/  what a broker's consumers hold
queues/NAME/failed/              files that are no messages, each beside a file with the reason
sessions/SESSION.lock            locked for as long as that broker lives
drafts/SESSION/                  what it is writing
"""

import heapq
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from common.broker.base import Delivery
from common.broker.filesystem_message import FileMessage, TornMessage, pack, unpack
from common.broker.filesystem_names import FileName, folder_of, queue_of, rank_of
from common.broker.filesystem_sessions import FileSession, dead_sessions, forget_session, is_alive
from common.broker.filesystem_topology import GRAVE, sync_folder

log = logging.getLogger(__name__)


class FileTag(NamedTuple):
    """Where a delivery's file is: below `processing` of its queue, under this name."""

    queue: str
    name: FileName
    type: str


class FileStore:
    """One session's view of the files below a root."""

    def __init__(self, root: Path) -> None:
        self._root = root
        for folder in ("queues", "sessions", "drafts"):
            (root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.session = FileSession(root / "sessions")
        self._drafts = root / "drafts" / self.session.name
        self._drafts.mkdir(mode=0o700)
        self._last_time = 0

    def incoming(self, queue: str) -> Path:
        return self._root / "queues" / folder_of(queue) / "incoming"

    def stamp(self) -> int:
        """Return the time, in nanoseconds, later than at every call before; not to be called by two threads."""
        self._last_time = max(time.time_ns(), self._last_time + 1)
        return self._last_time

    def store(self, messages: Iterable[tuple[str, FileName, FileMessage]]) -> None:
        """Bring messages to disk, each into a queue. Raises `FileNotFoundError` when a queue is gone."""
        drafts: list[tuple[Path, Path]] = []
        try:
            for queue, name, message in messages:
                draft = self._drafts / f"{name}"
                drafts.append((draft, self.incoming(queue) / str(name)))
                with draft.open("wb") as file:
                    file.write(pack(message))
                    file.flush()
                    os.fsync(file.fileno())
            for draft, target in drafts:
                draft.rename(target)
            for folder in {target.parent for _, target in drafts}:
                sync_folder(folder)
        finally:
            for draft, _ in drafts:
                draft.unlink(missing_ok=True)

    def take(self, queue: str, limit: int) -> list[Delivery]:
        """Claim the best files of a queue, at most `limit`; others may be faster, and then there are fewer."""
        deliveries: list[Delivery] = []
        while len(deliveries) < limit:
            best = heapq.nsmallest(limit - len(deliveries), self._waiting(queue), key=str)
            if not best:
                break
            for name in best:
                delivery = self._claim(queue, name)
                if delivery is not None:
                    deliveries.append(delivery)
        return deliveries

    def forget(self, tags: Iterable[FileTag]) -> None:
        for tag in tags:
            with suppress(FileNotFoundError):
                (self._held(tag.queue) / str(tag.name)).unlink()

    def give_back(self, tags: Iterable[FileTag]) -> None:
        for tag in tags:
            # A queue that was deleted meanwhile has taken its messages with it.
            with suppress(FileNotFoundError):
                (self._held(tag.queue) / str(tag.name)).rename(self.incoming(tag.queue) / str(tag.name.marked()))

    def depth(self, queue: str) -> int:
        now = time.time_ns()
        return sum(not name.is_expired(now) for name in self._names(queue))

    def put_back_of_the_dead(self) -> list[str]:
        """Put back what dead sessions held, log each file, and return the queues that have more now."""
        sessions = self._root / "sessions"
        found: list[str] = []
        for dead in dead_sessions(sessions, mine=self.session.name):
            found += self._put_back(dead)
            forget_session(sessions, dead)
        return found

    def put_back_of_the_forgotten(self) -> list[str]:
        """The same for folders whose session has no lock file any more; slower, so only done at the start.

        What a deletion that was cut short has left goes, too.
        """
        sessions = self._root / "sessions"
        for grave in self._root.glob(f"{GRAVE}*"):
            shutil.rmtree(grave, ignore_errors=True)
        held = {folder.name for folder in self._root.glob("queues/*/processing/*")}
        held |= {folder.name for folder in self._root.glob("drafts/*")}
        gone = [name for name in held - {self.session.name} if not is_alive(sessions, name)]
        return [queue for name in gone for queue in self._put_back(name)]

    def close(self) -> None:
        """Put back whatever is still held and leave."""
        self._put_back(self.session.name)
        self.session.close()

    def _put_back(self, session: str) -> list[str]:
        queues: list[str] = []
        for folder in self._root.glob(f"queues/*/processing/{session}"):
            queue = queue_of(folder.parents[1].name)
            for path in _files(folder):
                name = FileName.parse(path.name)
                target = path.name if name is None else str(name.marked())
                # Whoever else finds the dead session at the same time may be faster.
                with suppress(FileNotFoundError):
                    path.rename(self.incoming(queue) / target)
                    log.warning("broker.put_back", extra={"queue": queue, "file": target, "held_by": session})
                    queues.append(queue)
            with suppress(OSError):
                folder.rmdir()
        shutil.rmtree(self._root / "drafts" / session, ignore_errors=True)
        return queues

    def _names(self, queue: str) -> list[FileName]:
        try:
            with os.scandir(self.incoming(queue)) as entries:
                names = [FileName.parse(entry.name) for entry in entries]
        except FileNotFoundError:
            return []
        return [name for name in names if name is not None]

    def _waiting(self, queue: str) -> list[FileName]:
        """Return what can be delivered, and remove what has expired."""
        now = time.time_ns()
        waiting: list[FileName] = []
        for name in self._names(queue):
            if name.is_expired(now):
                (self.incoming(queue) / str(name)).unlink(missing_ok=True)
            else:
                waiting.append(name)
        return waiting

    def _claim(self, queue: str, name: FileName) -> Delivery | None:
        held = self._held(queue)
        path = held / str(name)
        try:
            if not held.exists():
                held.mkdir(mode=0o700, exist_ok=True)
            (self.incoming(queue) / str(name)).rename(path)
        except FileNotFoundError:
            return None
        try:
            message = unpack(path.read_bytes())
        except TornMessage as torn:
            self._fail(queue, path, str(torn))
            return None
        except OSError as failure:
            # Set aside rather than given back: the best file would be read again and again, and hold up the others.
            self._fail(queue, path, f"It cannot be read: {failure.strerror}.")
            return None
        return Delivery(
            body=message.body,
            message_id=message.message_id,
            priority=message.priority,
            redelivered=name.redelivered,
            headers=message.headers,
            tag=FileTag(queue, name, message.type),
        )

    def _fail(self, queue: str, path: Path, reason: str) -> None:
        """Set a file aside that is no message, beside a file that says why."""
        target = self._root / "queues" / folder_of(queue) / "failed" / path.name
        note = {"queue": queue, "reason": reason}
        target.with_name(f"{path.name}.reason.json").write_text(json.dumps(note), encoding="utf-8")
        path.rename(target)
        log.error("broker.unreadable_file", extra={"queue": queue, "file": path.name, "reason": reason})

    def _held(self, queue: str) -> Path:
        return self.incoming(queue).with_name("processing") / self.session.name


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def named(message: FileMessage, *, has_priorities: bool, time: int, expires: int, publisher: str) -> FileName:
    """Return the name of the file that is to hold a message."""
    return FileName(rank_of(message.priority, has_priorities=has_priorities), time, expires, publisher)
