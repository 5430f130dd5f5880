"""The queues and bindings that all brokers of a root share: one file, replaced as a whole under a lock. Blocking."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from common.broker.base import Address, Exchange, ExchangeType, Queue
from common.broker.filesystem_names import folder_of
from common.broker.routing import Routes

# The folder of a deleted queue, until everything in it is removed.
GRAVE = ".deleted-"
PARTS = ("incoming", "processing", "failed")


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FileTopology:
    """The file `topology.json` and the folders of the queues that it names."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / "topology.json"
        self._seen = b""
        self._routes = Routes()

    def routes(self) -> Routes:
        """Return the bindings as they are now."""
        content = self._read()
        if content != self._seen:
            self._routes, self._seen = Routes(_decode(content)), content
        return self._routes

    def declare(self, queues: tuple[Queue, ...]) -> None:
        with self._locked():
            known = {queue.name: queue for queue in _decode(self._read())}
            before = dict(known)
            for queue in queues:
                old = known.get(queue.name)
                if old is not None:
                    bindings = tuple(dict.fromkeys((*old.bindings, *queue.bindings)))
                    known[queue.name] = Queue(queue.name, bindings, has_priorities=old.has_priorities)
                else:
                    known[queue.name] = Queue(queue.name, queue.bindings, has_priorities=queue.has_priorities)
                for part in PARTS:
                    (self._folder(queue.name) / part).mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(self._folder(queue.name))
            sync_folder(self._root / "queues")
            if known != before:
                self._write(known)

    def delete(self, name: str) -> None:
        with self._locked():
            known = {queue.name: queue for queue in _decode(self._read())}
            if known.pop(name, None) is not None:
                self._write(known)
            # Out of the way in one step, so that no publisher finds half a queue.
            grave = self._root / f"{GRAVE}{uuid4().hex}"
            try:
                self._folder(name).rename(grave)
            except FileNotFoundError:
                return
        shutil.rmtree(grave, ignore_errors=True)

    def _folder(self, name: str) -> Path:
        return self._root / "queues" / folder_of(name)

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b"[]"

    def _write(self, queues: dict[str, Queue]) -> None:
        draft = self._root / ".topology.json"
        with draft.open("wb") as file:
            file.write(_encode(queues))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        sync_folder(self._root)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self._root / "topology.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _encode(queues: dict[str, Queue]) -> bytes:
    shown = [
        {
            "name": queue.name,
            "has_priorities": queue.has_priorities,
            "bindings": [
                [binding.exchange.name, binding.exchange.type, binding.routing_key] for binding in queue.bindings
            ],
        }
        for queue in queues.values()
    ]
    return json.dumps(shown, indent=1).encode()


def _decode(content: bytes) -> list[Queue]:
    return [
        Queue(
            entry["name"],
            tuple(Address(Exchange(name, ExchangeType(kind)), key) for name, kind, key in entry["bindings"]),
            has_priorities=entry["has_priorities"],
        )
        for entry in json.loads(content)
    ]
