"""The use cases of leases: renew, take results, reap, and settle accounts with agents. `giving` leases tasks.

Every one follows the same path: hold the keys of tasks that may end (`keys.admission`), lock the tasks, judge by
`rules`, write what was judged, and the events last, in one transaction. Of results those that are plain come before, by
a shorter way (`leases.results`); the transaction is for what is left.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import assert_never
from uuid import UUID

from common.lifecycle import Status
from common.loop import Wake
from common.messages import Credit, Lease, Renew, Renewed, WorkResult
from common.retry import RetryPolicy
from orchestrator.approvals.asking import Consent
from orchestrator.database.pool import Pool, transaction
from orchestrator.keys import admission
from orchestrator.leases import credit_queries, queries
from orchestrator.leases import events as told
from orchestrator.leases import results as plain_results
from orchestrator.leases.changes import Changes
from orchestrator.leases.credits import Credits
from orchestrator.leases.given import GivenLeases
from orchestrator.leases.model import End, Leased
from orchestrator.leases.rules import (
    AGENT_LOST,
    LOST_CODE,
    Duplicate,
    Finish,
    Requeue,
    Stale,
    Stopped,
    Verdict,
    judge_lost,
    judge_result,
)
from orchestrator.output.limit import capped
from orchestrator.output.service import chunks_of_result, store_chunks
from orchestrator.registry.model import Room
from orchestrator.registry.rules import BreakerPolicy
from orchestrator.settings import STANDARD
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import Task
from orchestrator.tasks.service import TaskService

log = logging.getLogger(__name__)

# Two results are the same if they are of the same attempt of a task, by the same agent.
ResultKey = tuple[UUID, int, UUID]


class LeaseService:
    """Keeps and ends leases. `lease` is how long a task is its agent's without renewing.

    `giver` rings when there may be tasks to give, or orders to send.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        lease: timedelta,
        policy: RetryPolicy,
        breaker: BreakerPolicy | None = None,
        max_output_bytes: int = STANDARD.max_output_bytes,
        credits: Credits | None = None,
        giver: Wake | None = None,
    ) -> None:
        self.given = GivenLeases()
        self._pool = pool
        self._credits = credits or Credits()
        self._giver = giver or Wake()
        self._breaker = breaker or BreakerPolicy()
        self._lease = lease
        self._policy = policy
        self._tasks = TaskService(pool)
        self._max_output = max_output_bytes

    async def withdraw(self, task_ids: Sequence[UUID]) -> None:
        """Cancel tasks that wait and that nobody may run."""
        await self._tasks.withdraw(task_ids)

    async def take_in(self, credits: Mapping[UUID, Credit]) -> list[Room]:
        """Note for how much work agents ask, and return what room they have."""
        if not credits:
            return []
        async with self._pool.acquire() as db:
            rooms = await credit_queries.take_in(db, credits)
        self.learn(rooms)
        return rooms

    def learn(self, rooms: Sequence[Room]) -> None:
        """Note what room agents have, and look for work when some waits."""
        self._credits.learn(rooms)
        if self._credits.tasks_wait and any(one.room > 0 for one in rooms):
            self._giver.ring()

    async def settle(self, credits: Mapping[UUID, Credit]) -> list[Leased]:
        """Return the leases of which agents, by their heartbeats, have not heard: they are granted once more.

        Every grant that an agent was told of in the answer to its last heartbeat has arrived, or is lost. Those of lost
        ones whose leases are over already take no room any more.
        """
        lost = {agent_id: one.heard - one.received for agent_id, one in credits.items() if one.heard > one.received}
        if not lost:
            return []
        async with transaction(self._pool) as db:
            missing = {agent_id: (credits[agent_id].session, count) for agent_id, count in lost.items()}
            found = await credit_queries.grant_again(db, missing, lease=self._lease)
            for task in found:
                assert task.agent_id is not None
                lost[task.agent_id] -= 1
            # What must not run any more is not granted once more: its lease ends by itself.
            consent = await Consent.open(db, found, now=await tasks.time_of(db, found))
            found = [task for task in found if consent.withheld(task) is None]
            over = {agent_id: count for agent_id, count in lost.items() if count > 0}
            await credit_queries.note_lost(db, credits, over)
        if found:
            log.warning("grants.lost", extra={"again": len(found)})
        return [self._again(task, credits) for task in found]

    def _again(self, task: Task, credits: Mapping[UUID, Credit]) -> Leased:
        assert task.agent_id is not None
        assert task.claim_id is not None
        credit = credits[task.agent_id].number
        return Leased(task, task.agent_id, task.claim_id, task.attempt, self._lease, credit, again=True)

    async def renew(self, renewals: Sequence[Renew]) -> list[tuple[UUID, Renewed]]:
        """Prolong what is still theirs; for each renewal, in order, the agent and what it is told."""
        asked = [(renewal.agent_id, lease) for renewal in renewals for lease in renewal.leases]
        async with self._pool.acquire() as db:
            kept = await queries.renew(db, asked, lease=self._lease)
        return [(renewal.agent_id, self._renewed(renewal, kept)) for renewal in renewals]

    def _renewed(self, renewal: Renew, kept: set[tuple[UUID, int]]) -> Renewed:
        def held(lease: Lease) -> bool:
            return (lease.task_id, lease.attempt) in kept

        return Renewed(
            renewal_id=renewal.renewal_id,
            lease_seconds=self._lease.total_seconds(),
            kept=[lease for lease in renewal.leases if held(lease)],
            lost=[lease for lease in renewal.leases if not held(lease)],
        )

    async def accept(
        self, results: Sequence[WorkResult], credits: Mapping[UUID, Credit] | None = None
    ) -> list[Verdict]:
        """Store results that count, note those that do not, and repeat attempts that may be repeated.

        `credits` are what agents ask for with them. When it returns, every result is dealt with for good, so its agent
        may forget it; the verdicts are in the same order.
        """
        # The same result twice counts once; one of a stranger hides nobody's.
        first = {_key(result): capped(result, self._max_output) for result in reversed(results)}
        ordered = list(first.values())[::-1]
        plain, rooms = await plain_results.finish(self._pool, ordered, credits or {}, self.given, policy=self._policy)
        if rooms is not None:
            self.learn(rooms)
        elif credits:
            await self.take_in(credits)
        verdicts: dict[ResultKey, Verdict] = {_key(result): verdict for result, verdict in plain}
        rest = [result for result in ordered if _key(result) not in verdicts]
        has_news = await self._judge(rest, verdicts) if rest else False
        if has_news:
            self._giver.ring()
        return [verdicts[_key(result)] for result in results]

    async def _judge(self, results: Sequence[WorkResult], verdicts: dict[ResultKey, Verdict]) -> bool:
        """Judge results in one transaction, and say whether there may be something to give or to send."""
        async with transaction(self._pool) as db:
            await admission.hold_for(db, [result.task_id for result in results])
            known = await tasks.lock(db, sorted({result.task_id for result in results}))
            attempts = await queries.attempts(db, [(result.task_id, result.attempt) for result in results])
            now = await tasks.time_of(db, known.values())
            changes = Changes(failing={attempt.agent_id for attempt in attempts.values() if attempt.by_failing})
            chunks = [chunk for result in results for chunk in chunks_of_result(result)]
            changes.events.extend(await store_chunks(db, chunks))
            for result in results:
                task = known.get(result.task_id)
                attempt = attempts.get((result.task_id, result.attempt))
                verdict = judge_result(task, attempt, result, now=now, policy=self._policy, chance=_chance())
                verdicts[_key(result)] = verdict
                is_repeated = attempt is not None and attempt.refused_before
                self._apply(changes, task, result, verdict, is_repeated=is_repeated)
            return await changes.write(db, breaker=self._breaker)

    def _apply(
        self, changes: Changes, task: Task | None, result: WorkResult, verdict: Verdict, *, is_repeated: bool
    ) -> None:
        if task is None:
            log.warning("result.of_unknown_task", extra={"task_id": result.task_id, "agent_id": result.agent_id})
            return
        if task.status is Status.CANCELLED:
            # Whatever it says of the end: the agent runs it no longer, so that its keys are free.
            changes.stopped.append((task.task_id, result.attempt, result.agent_id))
        match verdict:
            case Finish(status=status):
                changes.finish(task, End.of(result, status), verdict)
            case Requeue(at=at, counts=counts):
                end = replace(End.of(result, None), counts=counts)
                changes.requeue(task, end, at, is_repeated=is_repeated and not counts)
            case Stopped():
                end = End.of(result, None)
                changes.stop_reports.append(end)
                changes.events.append(told.stopped(task, result, end))
            case Duplicate():
                log.info("result.duplicate", extra={"task_id": task.task_id, "agent_id": result.agent_id})
            case Stale(reason=reason):
                log.info("result.stale", extra={"task_id": task.task_id, "reason": reason})
                changes.events.append(told.refused(task, result, reason))
            case _:
                assert_never(verdict)

    async def reap(self, *, limit: int) -> int:
        """Take tasks from agents that no longer renew: back to waiting, or failed; return how many."""
        async with self._pool.acquire() as db:
            expired = await queries.expired(db, limit=limit)
        return await self.put_back(expired) if expired else 0

    async def put_back(self, expired: Sequence[UUID], *, at_once: bool = False) -> int:
        """Do what `reap` does to those of the tasks whose lease has run out; return how many.

        `at_once`: a worker asks for work now, so that their next attempt does not wait.
        """
        async with transaction(self._pool) as db:
            await admission.hold_for(db, expired)
            lost = await queries.lock_expired(db, expired)
            now = await tasks.now(db)
            changes = Changes()
            for task in lost:
                match judge_lost(task, now=now, policy=self._policy, chance=_chance()):
                    case Finish(status=status) as verdict:
                        changes.finish(task, _lost(task, status), verdict)
                    case Requeue(at=at):
                        changes.requeue(task, _lost(task, None), now if at_once else at)
            await changes.write(db, breaker=self._breaker)
        for task in lost:
            log.warning("lease.lost", extra={"task_id": task.task_id, "agent_id": task.agent_id})
        return len(lost)


def _key(result: WorkResult) -> ResultKey:
    return (result.task_id, result.attempt, result.agent_id)


def _chance() -> float:
    return random.random()  # noqa: S311 - spreads retries over time, guards nothing


def _lost(task: Task, status: Status | None) -> End:
    return End(
        task.task_id, task.attempt, outcome="lost", status=status, error_code=LOST_CODE, error_message=AGENT_LOST
    )
