"""Workers that speak HTTP, as agents of the registry."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from common.messages import StatusUpdate
from common.orders import Drain, Leave, Pause
from orchestrator.database.pool import Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.jobs import queries
from orchestrator.jobs.model import Wanted, Worker
from orchestrator.jobs.rules import HTTP_POOL
from orchestrator.registry import queries as registry
from orchestrator.registry.rules import standing_order
from orchestrator.registry.service import RegistryService

# A worker that claims again and again is written down so often, which is enough not to count as silent.
EVERY_SECONDS = 5.0
MOST_REMEMBERED = 20_000


class Workers:
    """Registers workers when they claim, and takes in what they say of themselves."""

    def __init__(self, pool: Pool, registry: RegistryService) -> None:
        self._pool = pool
        self._registry = registry
        self._noted: dict[UUID, tuple[float, Mapping[str, Any]]] = {}

    async def claims(self, wanted: Wanted) -> None:
        """Note that a worker claims, unless that was noted just now."""
        worker, now = wanted.worker, time.monotonic()
        at, labels = self._noted.get(worker.agent_id, (-EVERY_SECONDS, {}))
        if now - at < EVERY_SECONDS and (not wanted.capabilities or labels == wanted.capabilities):
            return
        async with transaction(self._pool) as db:
            is_new = await queries.seen(
                db, worker, pool=HTTP_POOL, types=sorted(wanted.types or ()), labels=wanted.capabilities or None
            )
            if is_new:
                about = {"agent_type": HTTP_POOL, "hostname": worker.name}
                await events.append(db, NewEvent(Kind.AGENT_REGISTERED, worker.name, about, agent_id=worker.agent_id))
        if len(self._noted) >= MOST_REMEMBERED:
            self._noted.clear()
        self._noted[worker.agent_id] = (now, wanted.capabilities)

    async def running_since(self, worker: Worker) -> datetime:
        """Return since when a worker runs, as far as is known; now, if it is new."""
        async with self._pool.acquire() as db:
            standing = (await registry.standings(db, [worker.agent_id])).get(worker.agent_id)
            return await queries.now(db) if standing is None else standing.started_at

    async def report(
        self, worker: Worker, update: StatusUpdate
    ) -> tuple[Pause | Drain | Leave | None, Sequence[tuple[UUID, int]]]:
        """Take in a worker's own report; return what people ordered, and (task, attempt) that it must stop."""
        refused = await self._registry.record([update])
        async with self._pool.acquire() as db:
            await queries.name(db, worker)
            now = await queries.now(db)
            standing = (await registry.standings(db, [worker.agent_id])).get(worker.agent_id)
            cancelled = await queries.cancelled(db, worker.agent_id, update.current_tasks)
        order = refused.get(worker.agent_id)
        if order is not None and order.boot_id == update.boot_id:
            return order, cancelled
        return None if standing is None else standing_order(standing, now=now), cancelled
