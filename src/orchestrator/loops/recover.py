"""Before serving, make ledger and broker agree again after whatever happened while nobody was here."""

import logging
from collections.abc import Sequence

from common.broker import topology
from common.broker.base import Broker
from orchestrator.database.pool import Pool, transaction
from orchestrator.leases import queries as leases
from orchestrator.outbox import queries as outbox

log = logging.getLogger(__name__)


class Recover:
    """Finds what a crash, a restored backup or an emptied broker left behind, mends it, and logs each thing it does."""

    def __init__(self, pool: Pool, broker: Broker, *, agent_types: Sequence[str]) -> None:
        self._pool = pool
        self._broker = broker
        self._agent_types = agent_types

    async def run_once(self) -> int:
        """Return how many things had to be mended."""
        mended = await self._give_tickets() + await self._publish_lost_tickets()
        async with self._pool.acquire() as db:
            running, expired = await leases.count_running(db)
        log.info("recovery.done", extra={"mended": mended, "running_left_alone": running, "leases_run_out": expired})
        return mended

    async def _give_tickets(self) -> int:
        """A task that waits has a ticket, and only such a task has one."""
        async with transaction(self._pool) as db:
            given = await outbox.give_missing_tickets(db)
            removed = await outbox.remove_needless_tickets(db)
        for task_id in given:
            log.warning("recovery.ticket_given", extra={"task_id": task_id})
        for task_id in removed:
            log.warning("recovery.ticket_removed", extra={"task_id": task_id})
        return len(given) + len(removed)

    async def _publish_lost_tickets(self) -> int:
        """What the ledger takes for published and the broker does not have is published again."""
        again = 0
        for agent_type in self._agent_types:
            depth = await self._broker.depth(topology.work_queue(agent_type).name)
            async with self._pool.acquire() as db:
                lost = await outbox.make_due_if_more_than(db, agent_type, depth)
            if lost:
                log.warning("recovery.tickets_due", extra={"agent_type": agent_type, "tickets": lost, "depth": depth})
            again += lost
        return again
