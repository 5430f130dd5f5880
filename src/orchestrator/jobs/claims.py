"""Give tasks to workers that ask for them over HTTP: one transaction for all who ask at the same time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from orchestrator.approvals.asking import Consent
from orchestrator.database.pool import Pool, transaction
from orchestrator.jobs import queries
from orchestrator.jobs.model import Registered, Wanted
from orchestrator.leases.giving import Giving
from orchestrator.leases.model import Asker
from orchestrator.leases.service import LeaseService
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import Task

EXPIRED_AT_ONCE = 200


class Claims:
    """Answers claims: the best task that each may have, which is its own from then on, or None.

    `grace` is for how long after `since`, when this orchestrator started, a lease from before that ran out counts as
    live: nobody could renew it while there was no orchestrator.
    """

    def __init__(
        self,
        pool: Pool,
        leases: LeaseService,
        giving: Giving,
        *,
        since: datetime,
        grace: timedelta,
    ) -> None:
        self._pool = pool
        self._leases = leases
        self._giving = giving
        self._since = since
        self._grace = grace

    async def give(self, wanted: Sequence[Wanted]) -> list[Task | None]:
        """Lease the best tasks to those who ask, in the order in which they asked.

        Before that, what other workers of this API have lost is put back.
        """
        await self._put_back_lost()
        got, withheld = await self._held([one for one in wanted if one.repeatable])
        # What a repeated claim got before, and must not run, is not given once more: its lease ends by itself.
        left = [one for one in wanted if one.key not in got and one.key not in withheld]
        refused: set[UUID] = set()
        while askers := await self._askers(left):
            given = await self._giving.to(askers, besides=refused)
            got |= {(one.agent_id, one.claim_id): one.task.task_id for one in given.leased}
            if not given.withheld and not given.refused:
                break
            # What must not run is cancelled, what they refused just now is left to others, and the next best tried.
            await self._leases.withdraw(sorted(given.withheld))
            refused |= set(given.refused)
            left = [one for one in left if one.key not in got]
        async with self._pool.acquire() as db:
            known = await tasks.get(db, list(got.values())) if got else {}
        return [known.get(got[one.key]) if one.key in got else None for one in wanted]

    async def _put_back_lost(self) -> None:
        async with self._pool.acquire() as db:
            lost = await queries.expired(db, since=self._since, grace=self._grace, limit=EXPIRED_AT_ONCE)
        if lost:
            await self._leases.put_back(lost, at_once=True)

    async def _held(self, wanted: Sequence[Wanted]) -> tuple[dict[tuple[UUID, UUID], UUID], set[tuple[UUID, UUID]]]:
        """Return what repeated claims got before, the task by the key of the claim; and claims of what must not run."""
        if not wanted:
            return {}, set()
        async with transaction(self._pool) as db:
            held = await queries.held(db, {one.key for one in wanted})
            known = await tasks.get(db, list(held.values())) if held else {}
            consent = await Consent.open(db, known.values(), now=await queries.now(db))
            withheld = {key for key, task_id in held.items() if consent.withheld(known[task_id]) is not None}
        return {key: task_id for key, task_id in held.items() if key not in withheld}, withheld

    async def _askers(self, wanted: Sequence[Wanted]) -> list[Asker]:
        """Return who may have a task, once each; a worker that has not registered gets none, one on trial only one."""
        asking = [one for one in wanted if one.types is None or one.types]
        if not asking:
            return []
        async with self._pool.acquire() as db:
            known = await queries.workers(db, {one.worker.agent_id for one in asking})
        askers: dict[UUID | tuple[UUID, UUID], Asker] = {}
        for one in asking:
            found = known.get(one.worker.agent_id)
            if found is not None:
                askers.setdefault(one.worker.agent_id if found.on_trial else one.key, _asker(one, found))
        return list(askers.values())


def _asker(wanted: Wanted, found: Registered) -> Asker:
    return Asker(wanted.worker.agent_id, found.pool, wanted.claim_id, 1, wanted.lease, wanted.types, found.labels)
