"""What is kept, where its file lies, and what agents are told of it: pure decisions."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from common.messages import WorkStatus
from common.orders import MOST_NAMES, ArtifactsStored
from orchestrator.artifacts.model import Artifact, Claim, Held, Key, NewPiece

_NEVER = datetime.max.replace(tzinfo=UTC)

# Nothing will ever come of it, so its agent need not keep it.
UNKNOWN_ATTEMPT = "the ledger knows no such attempt of this agent"

# An agent, its file as (task, attempt, name), and why that is not stored; None: it is.
Settled = tuple[UUID, UUID, int, str, str | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many bytes one file may have, how many those of one run together, and how many everything that is kept.

    A task outside of any run is limited like a run. `files`: how many a run may keep.
    """

    one: int
    run: int
    all: int
    files: int = MOST_NAMES


def objection(size: int, *, held: Held, held_in_all: int, limits: Limits) -> str | None:
    """Return why a file of this size is not kept beside what is held already; None when it is kept."""
    if size > limits.one:
        return f"it has {size} bytes, and at most {limits.one} are kept of one file (max_artifact_bytes)"
    if held.size + size > limits.run:
        return (
            f"with its {size} bytes the run would keep {held.size + size}, and at most {limits.run} are kept of a run "
            "(max_run_artifact_bytes)"
        )
    return objection_of_all(size, held_in_all=held_in_all, limits=limits)


def objection_of_all(size: int, *, held_in_all: int, limits: Limits) -> str | None:
    """Return why there is no room for so many bytes in the whole store; None when there is."""
    if held_in_all + size <= limits.all:
        return None
    return (
        f"the store holds {held_in_all} bytes, and with its {size} it would exceed {limits.all} (max_artifacts_bytes)"
    )


def too_many(limits: Limits) -> str:
    """Return why a file is not kept of a run that keeps as many as it may."""
    return f"the run keeps {limits.files} files already, and no more are kept"


def disagreement(known: Artifact, piece: NewPiece) -> str | None:
    """Return why a piece does not belong to what is known under its name; None when it does."""
    if (known.sha256, known.size) == (piece.sha256, piece.size):
        return None
    return "another file was kept under this name before"


def pieces_of(statuses: Iterable[WorkStatus]) -> list[NewPiece]:
    """Return the pieces in messages, each with the attempt that it belongs to."""
    return [
        NewPiece(
            status.task_id,
            status.attempt,
            status.agent_id,
            piece.name,
            piece.type,
            piece.sha256,
            piece.size,
            piece.offset,
            piece.raw,
        )
        for status in statuses
        for piece in status.pieces
    ]


class Joiner:
    """Makes one file of pieces that come in the order of their offsets, and may overlap."""

    def __init__(self) -> None:
        self._end = 0

    def join(self, pieces: Iterable[tuple[int, bytes]]) -> bytes:
        """Return what pieces hold behind those before them; there is no hole between them."""
        parts: list[bytes] = []
        for offset, data in pieces:
            parts.append(data[self._end - offset :])
            self._end = max(self._end, offset + len(data))
        return b"".join(parts)


class Places:
    """Which paths of one folder are taken: a path cannot be a file and a folder at once."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def take(self, artifact_id: UUID, name: str) -> str:
        """Return the path of a file: its name, or, where that is taken, its name in a folder of its own."""
        above = _folders_of(name)
        is_free = name not in self._files and name not in self._folders and self._files.isdisjoint(above)
        path = name if is_free else f"{artifact_id}/{name}"
        self._files.add(path)
        self._folders.update(_folders_of(path))
        return path


def _folders_of(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def path_beside(stored: Sequence[Artifact], new: Artifact) -> str:
    """Return the path of a file that comes behind those that are stored, which are in their order."""
    places = Places()
    for one in stored:
        places.take(one.artifact_id, one.name)
    return places.take(new.artifact_id, new.name)


def placed(folder: Sequence[Artifact]) -> list[Artifact]:
    """Return all artifacts of a folder with their paths, in the given order.

    Whichever was stored first has the plain path, so that what is stored later changes the path of nothing.
    """
    places = Places()
    in_turn = sorted(folder, key=lambda one: (one.stored_at or _NEVER, one.created_at, one.artifact_id))
    paths = {one.artifact_id: places.take(one.artifact_id, one.name) for one in in_turn}
    return [replace(one, path=paths[one.artifact_id]) for one in folder]


def settled(
    pieces: Iterable[NewPiece], own: Container[Claim], known: Mapping[Key, Artifact], refused: Mapping[Key, str]
) -> Iterator[Settled]:
    """Yield what is settled of the files that pieces belong to.

    `own`: the attempts that are their agents'; `refused`: why the ledger does not even note some files.
    """
    for piece in pieces:
        if piece.claim not in own:
            yield piece.agent_id, *piece.key, UNKNOWN_ATTEMPT
        elif piece.key in refused:
            yield piece.agent_id, *piece.key, refused[piece.key]
        elif (reason := disagreement(known[piece.key], piece)) is not None:
            yield piece.agent_id, *piece.key, reason
        elif not known[piece.key].is_open:
            yield piece.agent_id, *piece.key, known[piece.key].missing


def answers_of(settled: Iterable[Settled]) -> list[tuple[UUID, ArtifactsStored]]:
    """Return what each agent is told of its files that are settled."""
    names: dict[tuple[UUID, UUID, int], dict[str, str | None]] = {}
    for agent_id, task_id, attempt, name, reason in settled:
        names.setdefault((agent_id, task_id, attempt), {})[name] = reason
    return [
        (
            agent_id,
            ArtifactsStored(
                task_id=task_id,
                attempt=attempt,
                names=[name for name, reason in found.items() if reason is None],
                refused={name: reason for name, reason in found.items() if reason is not None},
            ),
        )
        for (agent_id, task_id, attempt), found in names.items()
    ]
