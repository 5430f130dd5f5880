"""How an executor, or what works for it, says where an inner step of an attempt stands."""

from datetime import datetime
from typing import Protocol

from common.messages import StepStatus


class ReportStep(Protocol):
    """Says where an inner step stands; `agents.output.steps` brings it to the orchestrator."""

    def __call__(
        self,
        position: int,
        name: str,
        status: StepStatus,
        message: str = "",
        started_at: datetime | None = None,
        finished_at: datetime | None = None,
    ) -> None: ...
