"""Give tasks to workers that ask for them over HTTP: one transaction for all who ask at the same time."""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from orchestrator.approvals.asking import Consent
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.jobs import queries
from orchestrator.jobs.model import Choice, Wanted
from orchestrator.leases import events as told
from orchestrator.leases import queries as leases
from orchestrator.leases.rules import REFUSAL_MEMORY
from orchestrator.leases.service import LeaseService
from orchestrator.placement.bounds import aims_within
from orchestrator.registry.gate import Gate
from orchestrator.registry.rules import BreakerPolicy
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import Task

log = logging.getLogger(__name__)

EXPIRED_AT_ONCE = 200


class _Withheld(Exception):
    """Tasks that were just leased must not run."""

    def __init__(self, task_ids: Sequence[UUID]) -> None:
        self.task_ids = task_ids


class _RefusedMeanwhile(Exception):
    """A task was just leased to the worker that had refused it while its claim was being answered."""


class Claims:
    """Answers claims: the best task that each may have, which is its own from then on, or None.

    `grace` is for how long after `since`, when this orchestrator started, a lease from before that ran out counts as
    live: nobody could renew it while there was no orchestrator.
    """

    def __init__(
        self,
        pool: Pool,
        leases: LeaseService,
        *,
        since: datetime,
        grace: timedelta,
        breaker: BreakerPolicy | None = None,
    ) -> None:
        self._pool = pool
        self._leases = leases
        self._since = since
        self._grace = grace
        self._breaker = breaker or BreakerPolicy()

    async def give(self, wanted: Sequence[Wanted]) -> list[Task | None]:
        """Lease the best tasks to those who ask, in the order in which they asked.

        Before that, what other workers of this API have lost is put back.
        """
        await self._put_back_lost()
        while True:
            try:
                return await self._give(wanted)
            except _RefusedMeanwhile:
                # Nobody got anything, and now the refusal is seen from the beginning.
                continue
            except _Withheld as found:
                # Nobody got anything: what must not run is cancelled, and the next best tried.
                await self._leases.withdraw(found.task_ids)

    async def _give(self, wanted: Sequence[Wanted]) -> list[Task | None]:
        async with transaction(self._pool) as db:
            given = await self._held(db, wanted)
            chosen = await self._choose(db, [one for one in wanted if one.key not in given])
            chosen = await self._lease_out(db, chosen)
            given |= {one.key: task_id for task_id, one in chosen.items()}
            known = await tasks.get(db, list(given.values())) if given else {}
            await self._check_refusals(db, chosen, known)
            lapsed = await self._check(db, known, chosen)
            claimed = [(known[task_id], one.worker.agent_id) for task_id, one in chosen.items()]
            await events.append(db, *(told.claimed(task, agent_id, task.attempt) for task, agent_id in claimed))
        got = {key: known[task_id] for key, task_id in given.items() if task_id not in lapsed}
        return [got.get(one.key) for one in wanted]

    async def _check_refusals(self, db: Connection, chosen: Mapping[UUID, Wanted], known: Mapping[UUID, Task]) -> None:
        """See again who refused what, now that the tasks are locked; raises to undo it all where that has changed."""
        returned = [(one.worker.agent_id, task_id) for task_id, one in chosen.items() if known[task_id].unstarted]
        if returned:
            refused = await leases.refused_lately(db, {agent_id for agent_id, _ in returned}, within=REFUSAL_MEMORY)
            if any(task_id in refused.get(agent_id, ()) for agent_id, task_id in returned):
                raise _RefusedMeanwhile

    async def _check(self, db: Connection, known: Mapping[UUID, Task], chosen: Collection[UUID]) -> set[UUID]:
        """Have the approvals of tasks that were just leased count as used; raises to undo it all for what may not.

        Return what was leased before and may not begin any more: the answer of its claim was lost.
        """
        consent = await Consent.open(db, known.values(), now=await queries.now(db))
        withheld = {task.task_id for task in known.values() if consent.withheld(task) is not None}
        if new := withheld.intersection(chosen):
            raise _Withheld(sorted(new))
        await consent.use(db, [known[task_id] for task_id in chosen])
        return withheld

    async def _put_back_lost(self) -> None:
        async with self._pool.acquire() as db:
            lost = await queries.expired(db, since=self._since, grace=self._grace, limit=EXPIRED_AT_ONCE)
        if lost:
            await self._leases.put_back(lost, at_once=True)

    async def _held(self, db: Connection, wanted: Sequence[Wanted]) -> dict[tuple[UUID, UUID], UUID]:
        """Return what repeated claims got before: the task by the key of the claim."""
        repeatable = {one.key for one in wanted if one.repeatable}
        return await queries.held(db, repeatable) if repeatable else {}

    async def _choose(self, db: Connection, wanted: Sequence[Wanted]) -> dict[UUID, Wanted]:
        """Return the tasks to lease, and to whom; they are locked."""
        askers = [one for one in wanted if one.types is None or one.types]
        if not askers:
            return {}
        now = await queries.now(db)
        gate = await Gate.open(db, {one.worker.agent_id for one in askers}, now=now, policy=self._breaker)
        chosen: dict[UUID, Wanted] = {}
        served: set[tuple[UUID, UUID]] = set()
        for choice, group in (await self._alike(db, askers)).items():
            free = await queries.choose(db, choice, len(group), besides=chosen)
            for one in group:
                if not free:
                    break
                if one.key not in served and await gate.refusal(db, one.worker.agent_id) is None:
                    chosen[free.pop(0)] = one
                    served.add(one.key)
        return chosen

    async def _alike(self, db: Connection, wanted: Sequence[Wanted]) -> dict[Choice, list[Wanted]]:
        """Put together the claims that may get the same tasks. A worker that has not registered gets none."""
        askers = {one.worker.agent_id for one in wanted}
        known = await queries.workers(db, askers)
        refused = await leases.refused_lately(db, askers, within=REFUSAL_MEMORY)
        aims = await aims_within(db, {agent_id: labels for agent_id, (_, labels) in known.items()})
        alike: dict[Choice, list[Wanted]] = defaultdict(list)
        for one in wanted:
            agent_id = one.worker.agent_id
            if agent_id in known:
                pool, _ = known[agent_id]
                without = frozenset(refused.get(agent_id, ()))
                alike[Choice(pool, one.types, aims[agent_id], without)].append(one)
        return alike

    async def _lease_out(self, db: Connection, chosen: Mapping[UUID, Wanted]) -> dict[UUID, Wanted]:
        """Lease what was chosen, and return what was leased: not that of a worker which was forgotten meanwhile."""
        if not chosen:
            return {}
        rows = [(task_id, one.worker.agent_id, one.claim_id, one.lease) for task_id, one in chosen.items()]
        leased = await leases.claim(db, rows)
        return {task_id: one for task_id, one in chosen.items() if task_id in leased}
