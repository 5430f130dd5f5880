"""The files of one attempt: those that it gets, put into its workspace, and those that are kept of it."""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from threading import Event

from agents.artifacts.matching import Found, Unusable, matching, open_regular
from agents.artifacts.sender import ArtifactSender
from agents.artifacts.spool import Artifact, ArtifactSpool, Owner
from agents.artifacts.wants import NEW_FILE, Wants
from agents.executors.base import ExecutionContext, FilesUnavailable, Kept, NotKept
from common.artifacts import FILE_TYPE, check_artifact_name
from common.durable import write_all
from common.redaction.text import redacted
from common.redaction.values import Values
from common.work import FileReference


class Files:
    """Keeps and gets files for all attempts of this agent."""

    def __init__(self, spool: ArtifactSpool, sender: ArtifactSender, wants: Wants) -> None:
        self._spool = spool
        self._sender = sender
        self._wants = wants

    def of(self, owner: Owner, values: Values) -> "AttemptFiles":
        """Return those of one attempt; `values` are the secrets that leave this host in none of them."""
        return AttemptFiles(owner, values, self._spool, self._sender, self._wants)


class AttemptFiles:
    """The files of one attempt; a `Transfer`, and what keeps a single file."""

    def __init__(
        self, owner: Owner, values: Values, spool: ArtifactSpool, sender: ArtifactSender, wants: Wants
    ) -> None:
        self._owner = owner
        self._values = values
        self._spool = spool
        self._sender = sender
        self._wants = wants
        self._has_kept = False

    @property
    def has_kept(self) -> bool:
        """Whether a file goes ahead of the result."""
        return self._has_kept

    @property
    def are_sent(self) -> bool:
        """Whether all that is kept is on its way: `sent` returns at once."""
        return self._sender.has_sent(self._owner.task_id, self._owner.attempt)

    async def sent(self) -> None:
        """Return when all that is kept is with the broker."""
        await self._sender.sent(self._owner.task_id, self._owner.attempt)

    async def keep(self, name: str, path: Path, type: str = FILE_TYPE) -> Kept:
        """See `KeepFile`."""
        artifact = await asyncio.to_thread(self._keep_path, name, path, type, self._owing())
        return Kept(artifact.name, artifact.sha256, artifact.size)

    async def bring(
        self, files: Mapping[str, FileReference], context: ExecutionContext, *, keeps: bool
    ) -> Mapping[str, Path]:
        """See `Transfer`. No program has run in the workspace, so nothing in it leads elsewhere."""
        places: dict[str, Path] = {}
        for path, reference in files.items():
            place = places[path] = context.workspace / path
            await asyncio.to_thread(_make_folder, place.parent)
            if reference.text is not None:
                await asyncio.to_thread(_write_new, place, reference.text.encode())
                continue
            try:
                await self._wants.fetch(path, self._owner, place, sha256=reference.upload)
            except FilesUnavailable as problem:
                reason = f"The work cannot have its file {path!r}: {problem}."
                raise FilesUnavailable(reason, may_come=problem.may_come) from None
        user = context.enclosure.user
        if user is not None:
            await asyncio.to_thread(_give, context.workspace, places.values(), user.uid, user.gid)
        return places

    async def collect(self, patterns: Sequence[str], context: ExecutionContext) -> Sequence[str]:
        """See `Transfer`. A stop ends it after the file that is being kept."""
        is_given_up = Event()
        user = context.enclosure.user
        try:
            return await asyncio.to_thread(
                self._collect,
                context.workspace,
                patterns,
                None if user is None else user.uid,
                self._owing(),
                lambda: is_given_up.is_set() or context.stop.reason is not None,
            )
        finally:
            is_given_up.set()

    def _owing(self) -> Callable[[Artifact], None]:
        """Return what a thread tells of a file that is on disk; it is known before the thread's end is."""
        loop = asyncio.get_running_loop()

        def owe(artifact: Artifact) -> None:
            self._has_kept = True
            with suppress(RuntimeError):  # the agent has ended, and its next life sends it
                loop.call_soon_threadsafe(self._sender.owe, [artifact])

        return owe

    def _keep_path(self, name: str, path: Path, type: str, owe: Callable[[Artifact], None]) -> Artifact:
        try:
            file = open_regular(path)
        except Unusable as problem:
            raise NotKept(str(problem)) from None
        except FileNotFoundError:
            raise NotKept("there is no such file") from None
        except OSError as error:
            raise NotKept(f"it cannot be read: {error.strerror}") from None
        try:
            return self._keep_open(name, file, type, owe)
        finally:
            os.close(file)

    def _keep_open(self, name: str, file: int, type: str, owe: Callable[[Artifact], None]) -> Artifact:
        """Keep an open file. Raises `NotKept`."""
        try:
            check_artifact_name(name)
        except ValueError as problem:
            raise NotKept(f"its name {problem}") from None
        if redacted(name, self._values) != name:
            raise NotKept("its name holds a secret")
        try:
            artifact = self._spool.keep(file, name, type, self._owner, self._values)
        except Unusable as problem:
            raise NotKept(str(problem)) from None
        except OSError as error:
            raise NotKept(f"it cannot be kept: {error.strerror}") from None
        owe(artifact)
        return artifact

    def _collect(
        self,
        workspace: Path,
        patterns: Sequence[str],
        owner: int | None,
        owe: Callable[[Artifact], None],
        is_over: Callable[[], bool],
    ) -> list[str]:
        problems: list[str] = []
        try:
            with closing(matching(workspace, patterns, owner=owner)) as found:
                for one in found:
                    if not isinstance(one, Found):
                        problems.append(f"{one.name!r}: {one.reason}")
                        continue
                    try:
                        if is_over():
                            problems.append(f"{one.name!r} and those after it: the work was stopped")
                            break
                        self._keep_open(one.name, one.file, FILE_TYPE, owe)
                    except NotKept as problem:
                        problems.append(f"{one.name!r}: {problem}")
                    finally:
                        os.close(one.file)
        except OSError as error:
            problems.append(f"the rest of the workspace: it cannot be read: {error.strerror}")
        return problems


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


def _write_new(place: Path, data: bytes) -> None:
    handle = os.open(place, NEW_FILE, 0o600)
    try:
        write_all(handle, data)
    finally:
        os.close(handle)


def _give(workspace: Path, places: Iterable[Path], uid: int, gid: int) -> None:
    """Give files, and the folders above them in the workspace, to whoever the program runs as."""
    for place in places:
        for path in (place, *place.parents):
            if path == workspace:
                break
            os.chown(path, uid, gid, follow_symlinks=False)
