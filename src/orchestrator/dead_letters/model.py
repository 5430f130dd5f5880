"""A dead letter as it is noted and as the ledger holds it."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from common.rest.dead_letters import DeadLetterKind, DeadLetterState


@dataclass(frozen=True, slots=True)
class NewLetter:
    """Something to note. `body` may be the beginning only; `body_bytes` is how long it was."""

    kind: DeadLetterKind
    queue: str
    type: str
    reason: str
    message_id: str | None = None
    body: bytes = b""
    body_bytes: int = 0
    priority: int = 3
    task_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A row of `dead_letter`; in lists without its body. `replayed_as` is the task that a replay made."""

    id: int
    kind: DeadLetterKind
    message_id: str | None
    queue: str
    type: str
    reason: str
    body: bytes
    body_bytes: int
    body_kept: int
    priority: int
    task_id: UUID | None
    at: datetime
    state: DeadLetterState
    settled_at: datetime | None
    settled_by: str | None
    replayed_as: UUID | None

    @property
    def body_truncated(self) -> bool:
        """Say whether only the beginning of the body was kept."""
        return self.body_kept < self.body_bytes

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Letter":
        return cls(**{**row, "kind": DeadLetterKind(row["kind"]), "state": DeadLetterState(row["state"])})
