"""How repairs ended, on disk until the orchestrator has it: one file for each. Everything here blocks."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from agents.repairs.state import Unit
from common.durable import write_file
from common.messages import StepReport
from common.private import make_private

log = logging.getLogger(__name__)

FOLDER = "ended"


class Ended(BaseModel):
    """The steps of a repair that has ended, the last of which says how."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: UUID
    attempt: int
    trace_id: UUID | None
    reports: list[StepReport]

    @classmethod
    def of(cls, unit: Unit) -> Self:
        return cls(task_id=unit.task_id, attempt=unit.attempt, trace_id=unit.trace_id, reports=unit.reports)


class Outbox:
    """Below the folder of repairs."""

    def __init__(self, repairs: Path) -> None:
        self._folder = repairs / FOLDER

    def keep(self, ended: Ended) -> None:
        """Keep how a repair ended. Raises `OSError`."""
        make_private(self._folder)
        write_file(self._path(ended.task_id, ended.attempt), ended.model_dump_json().encode())

    def forget(self, task_id: UUID, attempt: int) -> None:
        """Remove what the orchestrator has. A removal that a crash undoes only means that it is sent once more."""
        with suppress(FileNotFoundError):
            self._path(task_id, attempt).unlink()

    def all(self) -> list[Ended]:
        """Return all that is kept, the oldest first."""
        found = []
        with suppress(FileNotFoundError):
            for path in sorted(self._folder.glob("*.json"), key=lambda one: one.stat().st_mtime_ns):
                try:
                    found.append(Ended.model_validate_json(path.read_bytes()))
                except (OSError, ValidationError) as problem:
                    log.warning("repair.unreadable", extra={"file": path.name, "reason": str(problem)})
        return found

    def _path(self, task_id: UUID, attempt: int) -> Path:
        return self._folder / f"{task_id}-{attempt}.json"
