"""What the ledger must hold, as plain Python: written down anew from the promises, without the production rules."""

from dataclasses import dataclass, field
from uuid import UUID

from common.lifecycle import Status
from common.messages import ResultStatus, WorkResult
from orchestrator.tasks.model import NewTask

FINAL = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


@dataclass
class Try:
    """One attempt. `is_reported`: something was said of its end. `pieces`: output by stream and offset."""

    agent_id: UUID
    claim_id: UUID
    outcome: str | None = None
    is_reported: bool = False
    pieces: dict[tuple[str, int], str] = field(default_factory=dict)


@dataclass
class Known:
    """One task."""

    new: NewTask
    status: Status = Status.PENDING
    unstarted: int = 0
    tries: list[Try] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def last(self) -> Try:
        return self.tries[-1]

    def claim(self, agent_id: UUID, claim_id: UUID, attempts: int) -> bool:
        """Say whether an agent that is chosen gets the task as it was after so many attempts, and note it."""
        if self.status is not Status.PENDING or attempts != len(self.tries):
            return False
        self.status = Status.RUNNING
        self.tries.append(Try(agent_id, claim_id))
        return True

    def holds(self, agent_id: UUID, attempt: int) -> bool:
        """Say whether an agent has the lease of an attempt."""
        return self.status is Status.RUNNING and len(self.tries) == attempt and self.last.agent_id == agent_id

    def cancel(self) -> bool:
        """Say whether the task can be cancelled, and note it."""
        if self.is_final:
            return False
        if self.status is Status.RUNNING:
            self.last.outcome = "cancelled"
        self.status = Status.CANCELLED
        return True

    def lose_lease(self) -> None:
        """The lease of a running task ran out."""
        self.last.outcome = "lost"
        self._again_or(Status.FAILED)

    def result(self, sent: WorkResult) -> None:
        """Note a result, if it counts."""
        tried = self.tries[sent.attempt - 1] if 1 <= sent.attempt <= len(self.tries) else None
        if tried is None or tried.agent_id != sent.agent_id:
            return
        if self.status is Status.RUNNING and len(self.tries) == sent.attempt:
            self._end(sent)
        elif tried.outcome == "cancelled" and sent.status is ResultStatus.CANCELLED:
            tried.is_reported = True

    def _end(self, sent: WorkResult) -> None:
        self.last.outcome = sent.status.value
        self.last.is_reported = True
        if sent.status is not ResultStatus.FAILED:
            self.status = Status(sent.status.value)
        elif not sent.started:
            self.unstarted += 1
            self.status = Status.PENDING
        elif sent.retryable:
            self._again_or(Status.FAILED)
        else:
            self.status = Status.FAILED

    def _again_or(self, end: Status) -> None:
        self.status = Status.PENDING if len(self.tries) - self.unstarted < self.new.max_attempts else end

    def text(self, number: int, stream: str) -> str:
        """Return the output of an attempt as far as it leaves no hole."""
        pieces, text = self.tries[number - 1].pieces, ""
        while (stream, len(text)) in pieces:
            text += pieces[stream, len(text)]
        return text
