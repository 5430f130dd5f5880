"""Artifacts as they are announced, as the ledger holds them, and while they arrive."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

# An artifact of an attempt: its task, the number of the attempt, and its name.
Key = tuple[UUID, int, str]
# An attempt as an agent names it: the task, its number, and the agent.
Claim = tuple[UUID, int, UUID]

# How the reason begins while a store that is away may come back; the pieces are kept until then.
AWAY = "the store is away"


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of an agent that keeps files.

    `folder` is the id of the run that its task belongs to, or else of the task. The other ids are those of events.
    """

    task_id: UUID
    attempt: int
    agent_id: UUID
    folder: UUID
    trace_id: UUID
    request_id: UUID

    @property
    def claim(self) -> Claim:
        return self.task_id, self.attempt, self.agent_id


@dataclass(frozen=True, slots=True)
class NewPiece:
    """A piece of a file that an agent sent for an attempt; it counts only if that attempt is this agent's."""

    task_id: UUID
    attempt: int
    agent_id: UUID
    name: str
    type: str
    sha256: str
    size: int
    offset: int
    data: bytes

    @property
    def claim(self) -> Claim:
        return self.task_id, self.attempt, self.agent_id

    @property
    def key(self) -> Key:
        return self.task_id, self.attempt, self.name


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """A file of which the first piece has come. `missing` says why it is not kept."""

    source: Attempt
    name: str
    type: str
    sha256: str
    size: int
    missing: str | None = None

    @property
    def key(self) -> Key:
        return self.source.task_id, self.source.attempt, self.name


@dataclass(frozen=True, slots=True)
class Artifact:
    """A row of `artifact`: a file that an attempt kept.

    It has arrived when `stored_at` is set. `missing` says why its content is not there, or not yet. `path` is where its
    file lies below the folder of its run or task, where that was asked for.
    """

    artifact_id: UUID
    task_id: UUID
    attempt: int
    name: str
    type: str
    sha256: str
    size: int
    created_at: datetime
    stored_at: datetime | None
    missing: str | None
    path: str = ""

    @property
    def key(self) -> Key:
        return self.task_id, self.attempt, self.name

    @property
    def is_stored(self) -> bool:
        """Whether its content is there."""
        return self.stored_at is not None and self.missing is None

    @property
    def is_open(self) -> bool:
        """Whether it may still be stored."""
        return self.stored_at is None and (self.missing is None or self.missing.startswith(AWAY))

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Artifact":
        return cls(**row)


@dataclass(frozen=True, slots=True)
class Arriving:
    """An open artifact, by whom it is kept, and whether all of its pieces are there, or have not come for too long."""

    artifact: Artifact
    folder: UUID
    agent_id: UUID | None
    trace_id: UUID | None
    request_id: UUID | None
    is_whole: bool
    is_overdue: bool

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Arriving":
        """Make it of a row that has its own columns before those of its artifact."""
        fields = dict(row)
        own = {name: fields.pop(name) for name in cls.__slots__ if name != "artifact"}
        return cls(Artifact(**fields), **own)


@dataclass(frozen=True, slots=True)
class Held:
    """How many files a run or a task keeps, and how many bytes they have together."""

    files: int
    size: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a task kept under a name: the artifact of its last attempt; what other attempts kept does not count.

    `may_come`: the task runs, or ended only just now, so that a file of which nothing has come may be on its way.
    """

    artifact: Artifact | None
    may_come: bool


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that somebody uploaded, for work that is to get it."""

    sha256: str
    size: int
