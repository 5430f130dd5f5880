"""Work that the gate let through: what an executor gets, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from pydantic import JsonValue

from common.confinement import UNCONFINED, Confinement
from common.messages import WorkRequest
from common.policy.model import Effect


@dataclass(frozen=True, slots=True)
class Permitted:
    """Made by a write gate only; a test looks at every line of source for another maker.

    `confinement` is what the programs must be shut in by, at least.
    """

    work: WorkRequest
    effect: Effect = Effect.WRITE
    confinement: Confinement = UNCONFINED
    approval_id: UUID | None = None

    @property
    def task_id(self) -> UUID:
        return self.work.task_id

    @property
    def parameters(self) -> Mapping[str, JsonValue]:
        return self.work.parameters
