"""Report the inner steps of an attempt: what a host does by itself within one task, each as it begins and ends."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from common.messages import LONGEST_MESSAGE, StepReport, StepStatus, WorkStatus
from common.progress import on_one_line
from common.protocol import ORCHESTRATOR, WorkStatusEnvelope

HandIn = Callable[[StepReport], asyncio.Future[None]]


class Steps:
    """The inner steps of one attempt.

    `hand_in` brings a report to the orchestrator, behind those before it. `hidden` takes the secrets out of a text.
    Nothing is repeated here: who must know that a report is in the ledger keeps it until `StepsStored` comes.
    """

    def __init__(self, hand_in: HandIn, *, hidden: Callable[[str], str]) -> None:
        self._hand_in = hand_in
        self._hidden = hidden
        self._has_sent = False

    @property
    def has_sent(self) -> bool:
        """Whether a report went ahead of the result."""
        return self._has_sent

    def say(
        self,
        position: int,
        name: str,
        status: StepStatus,
        message: str = "",
        started_at: datetime | None = None,
        finished_at: datetime | None = None,
    ) -> None:
        """Report where a step stands."""
        report = StepReport(
            position=position,
            name=name,
            status=status,
            started_at=started_at,
            finished_at=finished_at,
            # Secrets are looked for in the whole, for one may have several lines, and in what is left of it.
            message=self._hidden(on_one_line(self._hidden(message)))[:LONGEST_MESSAGE],
        )
        self._has_sent = True
        self._hand_in(report).add_done_callback(_arrived)


def status_of(
    agent_id: UUID,
    task_id: UUID,
    attempt: int,
    reports: Sequence[StepReport],
    *,
    trace_id: UUID | None = None,
    request_id: UUID | None = None,
) -> WorkStatusEnvelope:
    """Return the message that reports inner steps of an attempt, also of an earlier life of this agent."""
    return WorkStatusEnvelope(
        from_agent=str(agent_id),
        to_agent=ORCHESTRATOR,
        trace_id=trace_id,
        request_id=request_id,
        payload=WorkStatus(task_id=task_id, agent_id=agent_id, attempt=attempt, steps=list(reports)),
    )


def _arrived(sent: asyncio.Future[None]) -> None:
    if not sent.cancelled():  # an agent that stops gives up what waits
        sent.exception()  # known: whoever needs the report to arrive repeats it
