"""Workers that speak HTTP, as agents of the registry."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from common.compose import COMPOSE_REPAIR
from common.messages import StatusUpdate
from orchestrator.database.pool import Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.identities.model import Forbidden
from orchestrator.jobs import queries
from orchestrator.jobs.model import Told, Wanted, Worker
from orchestrator.jobs.rules import HTTP_POOL
from orchestrator.registry import queries as registry
from orchestrator.registry.model import Known
from orchestrator.registry.rules import believed_labels, contradiction, standing_order
from orchestrator.registry.service import RegistryService
from orchestrator.runs.service import unsettled_on

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
        """Note that a worker claims, unless that was noted just now; a new one registers so. Raises `Forbidden`."""
        worker, now = wanted.worker, time.monotonic()
        at, labels = self._noted.get(worker.agent_id, (-EVERY_SECONDS, {}))
        if now - at < EVERY_SECONDS and (not wanted.capabilities or labels == wanted.capabilities):
            return
        known = await self._known(worker, labels=wanted.capabilities)
        pool = HTTP_POOL if known is None else known.agent_type
        async with transaction(self._pool) as db:
            is_new = await queries.seen(
                db,
                worker,
                pool=pool,
                types=sorted(wanted.types or ()),
                labels=believed_labels(wanted.capabilities, None if known is None else known.pinned),
                has_said_labels=bool(wanted.capabilities),
            )
            if is_new:
                about = {"agent_type": pool, "hostname": worker.name}
                await events.append(db, NewEvent(Kind.AGENT_REGISTERED, worker.name, about, agent_id=worker.agent_id))
        if len(self._noted) >= MOST_REMEMBERED:
            self._noted.clear()
        self._noted[worker.agent_id] = (now, wanted.capabilities)

    async def pool_of(self, worker: Worker, said: str | None, labels: Mapping[str, Any]) -> str:
        """Return the pool of a worker that reports itself; `said` is the one that it names.

        Raises `Forbidden` for what its identity contradicts.
        """
        known = await self._known(worker, agent_type=said, labels=labels)
        return (said or HTTP_POOL) if known is None else known.agent_type

    async def _known(self, worker: Worker, *, agent_type: str | None = None, labels: Mapping[str, Any]) -> Known | None:
        known = await self._registry.known(worker.agent_id)
        wrong = contradiction(repr(worker.name), known, agent_type=agent_type, labels=labels)
        if wrong is not None:
            raise Forbidden(f"A worker says what its identity contradicts: {wrong}.")
        return known

    async def running_since(self, worker: Worker) -> datetime:
        """Return since when a worker runs, as far as is known; now, if it is new."""
        async with self._pool.acquire() as db:
            standing = (await registry.standings(db, [worker.agent_id])).get(worker.agent_id)
            return await queries.now(db) if standing is None else standing.started_at

    async def report(self, worker: Worker, update: StatusUpdate) -> Told:
        """Take in a worker's own report; return what it is told."""
        refused = (await self._registry.record([update])).refused
        async with self._pool.acquire() as db:
            await queries.name(db, worker)
            now = await queries.now(db)
            standing = (await registry.standings(db, [worker.agent_id])).get(worker.agent_id)
            cancelled = await queries.cancelled(db, worker.agent_id, update.current_tasks)
            owns_ends = COMPOSE_REPAIR in update.work_types
            links = await unsettled_on(db, worker.agent_id) if owns_ends else []
        unsettled = [(link.task_id, link.attempt) for link in links if link.task_id is not None]
        order = refused.get(worker.agent_id)
        if order is not None and order.boot_id == update.boot_id:
            return Told(order, cancelled, unsettled)
        return Told(None if standing is None else standing_order(standing, now=now), cancelled, unsettled)
