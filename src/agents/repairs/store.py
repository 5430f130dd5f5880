"""Where the host keeps what it knows of repairs: one file for each service, which only one repair at a time may have.

Names begin with the key of the service, which has its project and its name.

    <key>.json      the repair, see `Unit`
    <key>.lock      held by whoever works on the service
    <key>.before/   what the touched files held, by digest
    <key>.after/    what they hold afterwards
    <key>.logs/     what the steps say
    <key>.worktree  the copy of the workspace that is patched and built
    <key>.yml       names the image that is built

Everything here blocks: call it in a thread.
"""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from pydantic import ValidationError

from agents.repairs.state import Unit
from common.durable import write_file
from common.private import make_private

FOLDER = "repairs"
_STATE, _LOCK = ".json", ".lock"
BEFORE, AFTER = "before", "after"


class ServiceBusy(Exception):
    """Something of this host works on the service right now."""


class StateUnreadable(Exception):
    """What is on disk of a service cannot be understood, so nothing is known of its repair."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} cannot be read ({reason}), so it is not known how the last repair of the service stands. Look at "
            "the service and its workspace, then remove the file."
        )


class Store:
    """The repairs of this host's services, below the agent's state directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def below(cls, state_dir: Path) -> "Store":
        return cls(state_dir / FOLDER)

    def open(self) -> None:
        """Make the folder where there is none. Raises `OSError`."""
        make_private(self.folder)

    @contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """Have a service for oneself, among all processes; the death of a process lets go. Raises `ServiceBusy`."""
        handle = os.open(self.folder / f"{key}{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ServiceBusy(key) from None
            yield
        finally:
            os.close(handle)

    def keys(self) -> list[str]:
        """Return the keys of the services of which there is a state."""
        with suppress(FileNotFoundError):
            return sorted(path.name.removesuffix(_STATE) for path in self.folder.glob(f"*{_STATE}"))
        return []

    def read(self, key: str) -> Unit | None:
        """Return the newest repair of a service. Raises `StateUnreadable`."""
        path = self._state(key)
        try:
            return Unit.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateUnreadable(path, str(error)) from None
        except ValidationError as error:
            raise StateUnreadable(path, f"{error.error_count()} problems") from None

    def write(self, unit: Unit) -> None:
        """Bring what is known to disk, past every cache. Raises `OSError`."""
        write_file(self._state(unit.key), unit.model_dump_json().encode())

    def find(self, task_id: UUID, attempt: int) -> Unit | None:
        """Return the repair of an attempt, as long as no later one of its service has begun.

        Raises `StateUnreadable` when the repair may be one that cannot be read.
        """
        unreadable: StateUnreadable | None = None
        for key in self.keys():
            try:
                unit = self.read(key)
            except StateUnreadable as problem:
                unreadable = problem
                continue
            if unit is not None and (unit.task_id, unit.attempt) == (task_id, attempt):
                return unit
        if unreadable is not None:
            raise unreadable
        return None

    def left_in(self, workspace: str) -> dict[str, str | None]:
        """Return what verified repairs, of any service, have left changed in a workspace: digests by paths."""
        found: list[Unit] = []
        for key in self.keys():
            with suppress(StateUnreadable):
                unit = self.read(key)
                if unit is not None and unit.profile.workspace == workspace:
                    found.append(unit)
        in_order = sorted(found, key=lambda one: one.begun_at)
        return {path: digest for unit in in_order for path, digest in unit.leaves.items()}

    def save(self, key: str, which: str, data: bytes) -> str:
        """Keep the content of a file and return its digest. Raises `OSError`."""
        folder = self._contents(key, which)
        folder.mkdir(mode=0o700, exist_ok=True)
        digest = hashlib.sha256(data).hexdigest()
        write_file(folder / digest, data)
        return digest

    def saved(self, key: str, which: str, digest: str) -> bytes:
        """Return a content that was kept. Raises `OSError`, also when it is another one by now."""
        path = self._contents(key, which) / digest
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise OSError(errno.EIO, "It does not hold any more what was kept", str(path))
        return data

    def clear(self, key: str, *, keeps_contents: bool) -> None:
        """Make room for what the next repair of a service keeps, beside its state. Raises `OSError`."""
        contents = () if keeps_contents else (self._contents(key, BEFORE), self._contents(key, AFTER))
        for folder in (*contents, self.logs(key)):
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)
        self.logs(key).mkdir(mode=0o700)

    def logs(self, key: str) -> Path:
        return self.folder / f"{key}.logs"

    def worktree(self, key: str) -> Path:
        return self.folder / f"{key}.worktree"

    def override(self, key: str) -> Path:
        return self.folder / f"{key}.yml"

    def _contents(self, key: str, which: str) -> Path:
        return self.folder / f"{key}.{which}"

    def _state(self, key: str) -> Path:
        return self.folder / f"{key}{_STATE}"
