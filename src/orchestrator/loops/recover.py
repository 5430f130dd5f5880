"""Say what a start finds, and look for work to give after every outage of the ledger or the broker."""

import logging

from common.broker.base import Broker
from common.loop import Wake
from common.postgres import Database
from orchestrator.database.pool import Pool
from orchestrator.leases import queries as leases

log = logging.getLogger(__name__)


async def log_leases(pool: Pool) -> None:
    """Log how many leases a start finds. They go on: agents renew them, and what none renews is reaped."""
    async with pool.acquire() as db:
        running, expired = await leases.count_running(db)
    log.info("recovery.done", extra={"running_left_alone": running, "leases_run_out": expired})


class RecoverAfterOutages:
    """Rings when the broker was connected to anew, or the ledger's sessions were condemned.

    A statement that got no answer may have stored a task, for which nothing rang. Grants that the broker lost are sent
    again when the heartbeats of their agents say so.
    """

    def __init__(self, broker: Broker, database: Database, giver: Wake) -> None:
        self._broker = broker
        self._database = database
        self._giver = giver
        self._settled = self._generations

    async def run_once(self) -> int:
        found = self._generations
        if found == self._settled:
            return 0
        self._settled = found
        self._giver.ring()
        return 1

    @property
    def _generations(self) -> tuple[int, int]:
        return self._broker.generation, self._database.generation
