"""Make ledger and broker agree again: before serving, and after every outage of one of them."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from common.broker import topology
from common.broker.base import Broker
from common.loop import Wake
from common.postgres import Database
from orchestrator.database.pool import Pool, transaction
from orchestrator.leases import queries as leases
from orchestrator.outbox import queries as outbox

log = logging.getLogger(__name__)

AGAIN_AFTER = timedelta(seconds=2)


class Recover:
    """Finds what a crash, a restored backup or an emptied broker left behind, mends it, and logs each thing it does."""

    def __init__(self, pool: Pool, broker: Broker, *, agent_types: Sequence[str]) -> None:
        self._pool = pool
        self._broker = broker
        self._agent_types = agent_types

    async def run_once(self) -> int:
        """Return how many things had to be mended."""
        mended = await self._give_tickets() + await self._publish_lost_tickets()
        # The queues of single agents are not counted: their tickets are few.
        async with self._pool.acquire() as db:
            mended += await outbox.make_aimed_due(db)
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


class RecoverAfterOutages:
    """Recovers when the broker was connected to anew, or the ledger's sessions were condemned.

    A vhost that was made anew has lost what was published; a statement without an answer may have stored a ticket as
    published. Both would return only when their tickets are overdue.
    """

    def __init__(self, recover: Recover, broker: Broker, database: Database, relay: Wake) -> None:
        self._recover = recover
        self._broker = broker
        self._database = database
        self._relay = relay
        self._settled = self._generations

    async def run_once(self) -> int:
        found = self._generations
        if found == self._settled:
            return 0
        await self._recover.run_once()
        self._relay.ring()
        # Once more: a statement that was given up may end later than the first that is answered.
        await asyncio.sleep(AGAIN_AFTER.total_seconds())
        await self._recover.run_once()
        self._relay.ring()
        self._settled = found
        return 1

    @property
    def _generations(self) -> tuple[int, int]:
        return self._broker.generation, self._database.generation
