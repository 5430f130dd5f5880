"""What is done with a ticket, from whichever queue it came: read it, claim its task, and have that run."""

import logging
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from agents.attempts import Attempt
from agents.availability import Availability
from agents.capacity import Capacity
from agents.claimer import Claimer
from agents.reporter import Reporter
from agents.unreadable import Undertaker
from common.broker.base import Broker, Queue
from common.broker.topology import RESULTS
from common.errors import ErrorCode
from common.messages import ProtocolError, Ticket
from common.protocol import MOST_TICKET_BYTES, ORCHESTRATOR, ErrorEnvelope, TicketEnvelope, UnreadableMessage, decode

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Intake:
    """What all slots share: where tickets come from and what is done with them."""

    broker: Broker
    agent_id: UUID
    queue: Queue
    work_types: Collection[str]
    claimer: Claimer
    reporter: Reporter
    run: Callable[[Attempt], Coroutine[Any, Any, None]]
    availability: Availability
    undertaker: Undertaker
    ticket_hold: timedelta
    capacity: Capacity
    unsupported: set[str] = field(default_factory=set)

    async def claim(self, ticket: bytes) -> Attempt | None:
        """Return the attempt that was granted; None when this agent has nothing to run.

        Raises `UnreadableMessage` when it is no ticket, and `ClaimUnanswered`.
        """
        envelope = _read_ticket(ticket)
        if envelope.payload.work_type not in self.work_types:
            await self._refuse(envelope)
            return None
        return await self.claimer.claim(envelope.payload)

    async def work(self, attempt: Attempt) -> None:
        """Run an attempt to its end. What goes wrong with it is logged; being cancelled stops it."""
        try:
            await self.run(attempt)
        except Exception:
            log.exception("work.lost", extra={"task_id": attempt.task_id})

    async def _refuse(self, envelope: TicketEnvelope) -> None:
        """Give a ticket back to the orchestrator, which publishes it only to agents that offer such work."""
        ticket: Ticket = envelope.payload
        agent_id = str(self.agent_id)
        message = f"Agent {agent_id} has no executor for work type {ticket.work_type!r}."
        # One line for each type of work: tickets that were under way when this agent registered may come by hundreds.
        level = logging.DEBUG if ticket.work_type in self.unsupported else logging.WARNING
        self.unsupported.add(ticket.work_type)
        log.log(level, "ticket.unsupported", extra={"task_id": ticket.task_id, "reason": message})
        await self.reporter.send(
            RESULTS,
            ErrorEnvelope(
                from_agent=agent_id,
                to_agent=ORCHESTRATOR,
                trace_id=envelope.trace_id,
                request_id=envelope.request_id,
                payload=ProtocolError(
                    agent_id=self.agent_id,
                    error_code=ErrorCode.UNSUPPORTED_WORK_TYPE,
                    error_message=message,
                    about=ticket.task_id,
                ),
            ),
        )


def _read_ticket(body: bytes) -> TicketEnvelope:
    envelope = decode(body, limit=MOST_TICKET_BYTES)
    if not isinstance(envelope, TicketEnvelope):
        raise UnreadableMessage(f"type: a work queue takes work_request, not {envelope.type}")
    return envelope
