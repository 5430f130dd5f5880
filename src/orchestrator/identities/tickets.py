"""Tickets: what a browser, which can send no header, opens a WebSocket with."""

from datetime import timedelta

from orchestrator.database.pool import Pool
from orchestrator.identities import queries
from orchestrator.identities.model import Caller
from orchestrator.identities.tokens import digest_of, new_ticket

LASTS = timedelta(seconds=30)


class TicketService:
    """Gives out tickets: each opens one WebSocket, within seconds, as whoever asked for it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def give(self, caller: Caller) -> str:
        """Return a ticket; where nobody is asked for a token, one that nobody looks at."""
        ticket = new_ticket()
        if caller.token_id is not None:
            async with self._pool.acquire() as db:
                await queries.add_ticket(db, digest_of(ticket), caller.token_id, lasts=LASTS)
        return ticket
