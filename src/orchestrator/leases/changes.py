"""What one transaction about leases is going to write: collected while it judges, written at its end."""

from datetime import datetime, timedelta

from orchestrator.database.pool import Connection
from orchestrator.events import queries as events
from orchestrator.events.model import NewEvent
from orchestrator.leases import events as told
from orchestrator.leases import queries
from orchestrator.leases.queries import End
from orchestrator.leases.rules import Finish
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.model import NewTicket
from orchestrator.tasks.model import Task


class Changes:
    """What one transaction is about to write."""

    def __init__(self) -> None:
        self.ends: list[End] = []
        self.requeued: list[End] = []
        self.tickets: list[NewTicket] = []
        self.events: list[NewEvent] = []

    def finish(self, task: Task, end: End, verdict: Finish) -> None:
        self.ends.append(end)
        self.events.append(told.ended(task, end, verdict.status))

    def requeue(self, task: Task, end: End, at: datetime) -> None:
        self.ends.append(end)
        self.requeued.append(end)
        self.tickets.append(told.new_ticket(task, at))
        self.events.append(told.requeued(task, end, at))

    async def write(self, db: Connection, *, ageing: timedelta) -> None:
        await queries.end(db, self.ends)
        await queries.requeue(db, self.requeued)
        await outbox.add_tickets(db, self.tickets, ageing=ageing)
        await events.append(db, *self.events)
