"""The use cases of artifacts: take in pieces, say what is kept, open it, and hand files to the work that gets them."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import UUID

from pydantic import ValidationError

from common.artifacts import MAX_PIECE_BYTES
from common.errors import ErrorCode, NotFound
from common.messages import WantFile, WorkStatus
from common.orders import ArtifactsStored, FilePiece
from common.work import FileReference
from orchestrator.artifacts import events as told
from orchestrator.artifacts import queries
from orchestrator.artifacts.admission import Admitted, Total, admit
from orchestrator.artifacts.assembling import AssembleArtifacts
from orchestrator.artifacts.model import Artifact, Attempt, Claim, Key, NewArtifact, NewPiece, Upload
from orchestrator.artifacts.rules import Limits, answers_of, disagreement, pieces_of, placed, settled
from orchestrator.artifacts.store import Content, Store, StoreProblem
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.tasks.service import TaskNotFound

# The queue of progress waits while a piece is read, and must not wait for a disk that hangs.
READ_SECONDS = 5.0
# What a task kept goes ahead of its result. Another orchestrator may store it so much later; and it may be as `LATE`
# when the result went first.
ON_ITS_WAY = timedelta(seconds=1)
LATE = timedelta(seconds=30)


class ArtifactNotFound(NotFound):
    code = ErrorCode.ARTIFACT_NOT_FOUND

    def __init__(self, artifact_id: UUID, because: str = "") -> None:
        super().__init__(because or f"No artifact has the id {artifact_id}.")


class NoSuchFile(Exception):
    """Work cannot get a file; the text says why, as a sentence."""


class Reading:
    """A content that is open, read in a thread of the store."""

    def __init__(self, store: Store, content: Content) -> None:
        self._store = store
        self._content = content

    @property
    def size(self) -> int:
        return self._content.size

    async def read(self, offset: int, size: int) -> bytes:
        """Return so many bytes from there on, fewer at the end. Raises `StoreAway`."""
        return await self._store.run(partial(self._content.read, offset, size))

    def close(self) -> None:
        """Read no more; a read that is under way is waited for by a thread of the store."""
        self._store.submit(self._content.close)


class ArtifactService:
    """Keeps what work leaves behind, within limits, whatever agents send."""

    def __init__(
        self, pool: Pool, store: Store, assembling: AssembleArtifacts, *, limits: Limits, total: Total
    ) -> None:
        self._pool = pool
        self._store = store
        self._assembling = assembling
        self._limits = limits
        self._total = total

    async def store(self, statuses: Sequence[WorkStatus]) -> list[tuple[UUID, ArtifactsStored]]:
        """Store the pieces in messages; what is there already, or is of no attempt of its agent, changes nothing.

        Attempts count whatever became of their leases. Returns what each agent is to be told of the files that are
        settled; of others it is told when they are.
        """
        pieces = pieces_of(statuses)
        if not pieces:
            return []
        async with transaction(self._pool) as db:
            found = await queries.own_attempts(db, {piece.claim for piece in pieces})
            attempts = {attempt.claim: attempt for attempt in found}
            own = [piece for piece in pieces if piece.claim in attempts]
            admitted = await self._announce(db, _announced(own, attempts))
            wanted = _wanted(own, admitted)
            await queries.add_pieces(db, wanted)
            sources = {piece.key: attempts[piece.claim] for piece in own}
            not_kept = [one for one in admitted.added if one.missing is not None]
            await events.append(db, *(told.missing(sources[one.key], one) for one in not_kept))
        self._assembling.look_at({artifact_id for artifact_id, _ in wanted})
        return answers_of(settled(pieces, attempts, admitted.known, admitted.refused))

    async def _announce(self, db: Connection, files: Mapping[Key, NewArtifact]) -> Admitted:
        """Have files announced that are not; return what the ledger knows of all of them then."""
        known = await queries.known(db, files.keys())
        new = [one for key, one in files.items() if key not in known]
        if not new:
            return Admitted(known)
        admitted = await admit(db, new, limits=self._limits, total=self._total)
        return replace(admitted, known={**known, **admitted.known})

    async def settled(self, task_id: UUID, attempt: int, agent_id: UUID) -> ArtifactsStored:
        """Return which files of an attempt of this agent are stored or refused, for one that nobody tells later."""
        async with self._pool.acquire() as db:
            found = await queries.of_attempt(db, task_id, attempt, agent_id)
        done = [(agent_id, *one.key, one.missing) for one in found if not one.is_open]
        answers = answers_of(done)
        return answers[0][1] if answers else ArtifactsStored(task_id=task_id, attempt=attempt)

    async def of_run(self, run_id: UUID) -> list[Artifact]:
        """Return what the tasks of a run keep, oldest first; each path is one below the folder of the run."""
        async with self._pool.acquire() as db:
            return placed(await queries.in_folder(db, run_id))

    async def of_task(self, task_id: UUID) -> list[Artifact]:
        """Return what a task keeps, oldest first, with paths below the folder of its run, or its own.

        Raises `TaskNotFound`.
        """
        async with self._pool.acquire() as db:
            folder = await queries.folder_of(db, task_id)
            if folder is None:
                raise TaskNotFound(task_id)
            return [one for one in placed(await queries.in_folder(db, folder)) if one.task_id == task_id]

    async def open(self, artifact_id: UUID) -> tuple[Artifact, Reading]:
        """Return an artifact, and its content for reading.

        Raises `ArtifactNotFound`, also for one whose content has not come, `ContentGone`, `StoreAway` and `PlaceTaken`.
        """
        async with self._pool.acquire() as db:
            found = await queries.find(db, artifact_id)
        if found is None:
            raise ArtifactNotFound(artifact_id)
        if not found.is_stored:
            because = found.missing or "it is still arriving"
            raise ArtifactNotFound(artifact_id, f"The content of the artifact {artifact_id} is not there: {because}.")
        content = await self._store.run(partial(self._store.open, found.sha256, found.size))
        return found, Reading(self._store, content)

    async def piece(self, want: WantFile) -> FilePiece | None:
        """Return a piece of a file that work gets, or the problem with it; None: the agent is to ask again.

        None is for a file that another task keeps and that is still on its way.
        """
        try:
            source = await self._source(want)
            if source is None:
                return None
            data = await self._part_of(source, want)
        except NoSuchFile as problem:
            return FilePiece(want_id=want.want_id, offset=want.offset, problem=str(problem))
        return FilePiece(
            want_id=want.want_id,
            offset=want.offset,
            data=base64.b64encode(data).decode(),
            size=source.size,
            sha256=source.sha256,
        )

    async def _part_of(self, source: Upload, want: WantFile) -> bytes:
        """Return what is wanted of a file. Raises `NoSuchFile`."""
        if want.offset > source.size or want.offset == source.size > 0:
            raise NoSuchFile(f"The file {want.path!r} has {source.size} bytes, and none at {want.offset}.")
        read = partial(self._store.read, source.sha256, source.size, want.offset, MAX_PIECE_BYTES)
        try:
            return await self._store.run(read, within=READ_SECONDS)
        except StoreProblem as problem:
            raise NoSuchFile(str(problem)) from problem

    async def _source(self, want: WantFile) -> Upload | None:
        """Return the digest and size of a file that work gets; None while it is on its way. Raises `NoSuchFile`."""
        async with self._pool.acquire() as db:
            is_own, given = await queries.reference(db, want.task_id, want.attempt, want.agent_id, want.path)
            if not is_own:
                raise NoSuchFile(f"The task {want.task_id} has no attempt {want.attempt} of this agent.")
            try:
                reference = FileReference.model_validate(given)
            except ValidationError:
                raise NoSuchFile(f"The work names no file {want.path!r}.") from None
            if reference.upload is not None:
                return await _uploaded(db, reference.upload)
            if reference.task is None or reference.artifact is None:
                raise NoSuchFile(f"The file {want.path!r} is a text in the parameters, and is not fetched.")
            return await _kept(db, UUID(reference.task), reference.artifact)


def _announced(pieces: Iterable[NewPiece], attempts: Mapping[Claim, Attempt]) -> dict[Key, NewArtifact]:
    """Return the files that pieces belong to, each as the first of its pieces describes it."""
    files: dict[Key, NewArtifact] = {}
    for piece in pieces:
        source = attempts[piece.claim]
        files.setdefault(piece.key, NewArtifact(source, piece.name, piece.type, piece.sha256, piece.size))
    return files


def _wanted(pieces: Iterable[NewPiece], admitted: Admitted) -> list[tuple[UUID, NewPiece]]:
    """Return the pieces of files that are still to be stored, each with the id of its artifact."""
    files = [(admitted.known.get(piece.key), piece) for piece in pieces]
    return [
        (file.artifact_id, piece)
        for file, piece in files
        if file is not None and file.is_open and disagreement(file, piece) is None
    ]


async def _uploaded(db: Connection, sha256: str) -> Upload:
    size = await queries.upload_size(db, sha256)
    if size is None:
        raise NoSuchFile(f"Nothing with the SHA-256 {sha256} was uploaded.")
    return Upload(sha256, size)


async def _kept(db: Connection, task_id: UUID, name: str) -> Upload | None:
    found = await queries.wanted(db, task_id, name, on_its_way=ON_ITS_WAY, late=LATE)
    if found is None:
        raise NoSuchFile(f"No task has the id {task_id}.")
    if found.artifact is None:
        if found.may_come:
            return None
        raise NoSuchFile(f"The task {task_id} kept no artifact {name!r}.")
    if found.artifact.is_stored:
        return Upload(found.artifact.sha256, found.artifact.size)
    if found.artifact.missing is None:
        return None
    raise NoSuchFile(f"The artifact {name!r} of the task {task_id} is missing: {found.artifact.missing}.")
