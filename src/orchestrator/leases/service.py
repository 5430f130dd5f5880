"""The use cases of leases, one transaction each: claim, renew, result, and reap.

Every one follows the same path: hold the keys of tasks that may end (`keys.admission`), lock the tasks, judge by
`rules`, write what was judged, and the events last.
"""

import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never
from uuid import UUID

from common.lifecycle import Status
from common.loop import Wake
from common.messages import (
    Claim,
    ClaimedTask,
    GrantedTask,
    Lease,
    RefusedTask,
    Renew,
    Renewed,
    WorkResult,
)
from common.retry import RetryPolicy
from common.safeguards import Safeguard, is_on
from orchestrator.approvals.asking import Consent
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.keys import admission
from orchestrator.leases import events as told
from orchestrator.leases import queries
from orchestrator.leases.answers import Answer, answers, refused
from orchestrator.leases.changes import Changes
from orchestrator.leases.grants import granted
from orchestrator.leases.queries import End
from orchestrator.leases.rules import (
    AGENT_LOST,
    LOST_CODE,
    Duplicate,
    Finish,
    Give,
    GiveAgain,
    Refuse,
    Requeue,
    Stale,
    Stopped,
    Verdict,
    judge_claim,
    judge_lost,
    judge_result,
)
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.room import Room
from orchestrator.output.limit import MAX_OUTPUT_BYTES, capped
from orchestrator.output.service import chunks_of_result, store_chunks
from orchestrator.placement.bounds import Bounds
from orchestrator.registry.gate import Gate
from orchestrator.registry.rules import SHUT_OUT, STANDARD, BreakerPolicy
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import Task
from orchestrator.tasks.service import TaskService

log = logging.getLogger(__name__)


class LeaseService:
    """Gives tasks to agents and takes their results. `lease` is how long a task is theirs without renewing."""

    def __init__(
        self,
        pool: Pool,
        *,
        lease: timedelta,
        ageing: timedelta,
        policy: RetryPolicy,
        breaker: BreakerPolicy = STANDARD,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        room: Room | None = None,
        relay: Wake | None = None,
    ) -> None:
        self._pool = pool
        self._room = room or Room()
        self._relay = relay or Wake()
        self._breaker = breaker
        self._lease = lease
        self._ageing = ageing
        self._policy = policy
        self._tasks = TaskService(pool, ageing=ageing)
        self._max_output = max_output_bytes

    async def claim(self, claims: Sequence[Claim]) -> list[Answer]:
        """Lease what is free to those who asked, first come first served, and answer each agent once."""
        wanted = [(claim.agent_id, task) for claim in claims for task in claim.tasks]
        grants: dict[UUID, list[GrantedTask]] = defaultdict(list)
        refusals: dict[UUID, list[RefusedTask]] = defaultdict(list)
        barred: list[UUID] = []
        async with transaction(self._pool) as db:
            known = await tasks.lock_claimable(db, sorted({task.task_id for _, task in wanted}))
            now = await tasks.time_of(db, known.values())
            claimers = {agent_id for agent_id, _ in wanted}
            gate = await Gate.open(db, claimers, now=now, policy=self._breaker)
            consent = await Consent.open(db, known.values(), now=now)
            bounds = await Bounds.open(db, {task.aim for task in known.values()}, claimers)
            winners: dict[UUID, tuple[UUID, ClaimedTask]] = {}
            for agent_id, claim in wanted:
                task = known.get(claim.task_id)
                match _judge(task, claim, agent_id, now, gate):
                    case Give() if winners.get(claim.task_id) == (agent_id, claim):
                        pass  # asked twice at once, and granted once
                    case Give() if claim.task_id in winners:
                        refusals[agent_id].append(refused(claim, "another agent was first"))
                    case Give():
                        task = known[claim.task_id]
                        reason = consent.withheld(task) or bounds.refusal(task.aim, agent_id)
                        if reason is None and (reason := await gate.refusal(db, agent_id)) is None:
                            winners[claim.task_id] = (agent_id, claim)
                        else:
                            refusals[agent_id].append(refused(claim, reason))
                            barred.append(claim.task_id)
                    case GiveAgain():
                        assert task is not None
                        grants[agent_id].append(self._granted(task, claim, task.attempt, task.fence))
                    case Refuse(reason=reason):
                        refusals[agent_id].append(refused(claim, reason))
            await outbox.add_orders(db, gate.orders())
            # The ticket is used up and nobody runs the task: others get it at once.
            await outbox.make_due(db, [task_id for task_id in barred if task_id not in winners])
            await consent.use(db, [known[task_id] for task_id in winners])
            for agent_id, grant in await self._lease_out(db, known, winners):
                grants[agent_id].append(grant)
        if consent.found:
            await self.withdraw(sorted(consent.found))
        self._used_up([known[task_id] for task_id in winners], some_were_refused=bool(refusals))
        return answers(claims, grants, refusals)

    def _used_up(self, leased: Sequence[Task], *, some_were_refused: bool) -> None:
        """There is room for other tickets in the place of these tasks'."""
        for task in leased:
            self._room.give_back(task.queue)
        if some_were_refused or self._room.calls_relay or self._room.aimed_wait:
            self._relay.ring()

    async def withdraw(self, task_ids: Sequence[UUID]) -> None:
        """Cancel tasks that were refused to those who claimed them because nobody may run them."""
        await self._tasks.withdraw(task_ids)

    async def _lease_out(
        self, db: Connection, known: dict[UUID, Task], winners: dict[UUID, tuple[UUID, ClaimedTask]]
    ) -> list[tuple[UUID, GrantedTask]]:
        if not winners:
            return []
        rows = [(task_id, agent_id, claim.claim_id, self._lease) for task_id, (agent_id, claim) in winners.items()]
        leased = await queries.claim(db, rows)
        await events.append(
            db,
            *(told.claimed(known[task_id], winners[task_id][0], attempt) for task_id, (attempt, _) in leased.items()),
        )
        return [
            (winners[task_id][0], self._granted(known[task_id], winners[task_id][1], attempt, fence))
            for task_id, (attempt, fence) in leased.items()
        ]

    def _granted(self, task: Task, claim: ClaimedTask, attempt: int, fence: int) -> GrantedTask:
        return granted(
            task, claim.claim_id, attempt=attempt, fence=fence, lease=self._lease, max_output_bytes=self._max_output
        )

    async def renew(self, renewals: Sequence[Renew]) -> list[tuple[UUID, Renewed]]:
        """Prolong what is still theirs; for each renewal, in order, the agent and what it is told."""
        asked = [(renewal.agent_id, lease) for renewal in renewals for lease in renewal.leases]
        async with self._pool.acquire() as db:
            kept = await queries.renew(db, asked, lease=self._lease)
        return [(renewal.agent_id, self._renewed(renewal, kept)) for renewal in renewals]

    def _renewed(self, renewal: Renew, kept: set[tuple[UUID, int]]) -> Renewed:
        def held(lease: Lease) -> bool:
            return (lease.task_id, lease.fence) in kept

        return Renewed(
            renewal_id=renewal.renewal_id,
            lease_seconds=self._lease.total_seconds(),
            kept=[lease for lease in renewal.leases if held(lease)],
            lost=[lease for lease in renewal.leases if not held(lease)],
        )

    async def accept(self, results: Sequence[WorkResult]) -> list[Verdict]:
        """Store results that count, note those that do not, and repeat attempts that may be repeated.

        When it returns, every result is dealt with for good, so its agent may forget it; the verdicts are in the same
        order.
        """
        # The same result twice counts once; one of a stranger hides nobody's.
        first = {_key(result): capped(result, self._max_output) for result in reversed(results)}
        keys, ordered = list(first)[::-1], list(first.values())[::-1]
        verdicts: list[Verdict] = []
        async with transaction(self._pool) as db:
            await admission.hold_for(db, [result.task_id for result in ordered])
            known = await tasks.lock(db, sorted({result.task_id for result in ordered}))
            if not is_on(Safeguard.FENCE):
                ordered = [_unfenced(result, known.get(result.task_id)) for result in ordered]
            attempts = await queries.attempts(db, [(result.task_id, result.attempt) for result in ordered])
            now = await tasks.time_of(db, known.values())
            changes = Changes(failing={attempt.agent_id for attempt in attempts.values() if attempt.by_failing})
            chunks = [chunk for result in ordered for chunk in chunks_of_result(result)]
            changes.events.extend(await store_chunks(db, chunks))
            for result in ordered:
                task = known.get(result.task_id)
                attempt = attempts.get((result.task_id, result.attempt))
                verdict = judge_result(task, attempt, result, now=now, policy=self._policy, chance=_chance())
                self._apply(changes, task, result, verdict)
                verdicts.append(verdict)
            has_news = await changes.write(db, ageing=self._ageing, breaker=self._breaker)
        if has_news or self._room.aimed_wait:
            self._relay.ring()
        by_key = dict(zip(keys, verdicts, strict=True))
        return [by_key[_key(result)] for result in results]

    def _apply(self, changes: Changes, task: Task | None, result: WorkResult, verdict: Verdict) -> None:
        if task is None:
            log.warning("result.of_unknown_task", extra={"task_id": result.task_id, "agent_id": result.agent_id})
            return
        if task.status is Status.CANCELLED:
            # Whatever it says of the end: the agent runs it no longer, so that its keys are free.
            changes.stopped.append((task.task_id, result.fence, result.agent_id))
        match verdict:
            case Finish(status=status):
                changes.finish(task, End.of(result, status), verdict)
            case Requeue(at=at, counts=counts):
                changes.requeue(task, replace(End.of(result, None), counts=counts), at)
            case Stopped():
                end = End.of(result, None)
                changes.ends.append(end)
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

        `at_once`: somebody asks for them now, so that their next attempt does not wait.
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
            await changes.write(db, ageing=self._ageing, breaker=self._breaker)
        for task in lost:
            log.warning("lease.lost", extra={"task_id": task.task_id, "agent_id": task.agent_id})
        return len(lost)


def _judge(
    task: Task | None, claim: ClaimedTask, agent_id: UUID, now: datetime, gate: Gate
) -> Give | GiveAgain | Refuse:
    verdict = judge_claim(task, claim, agent_id=agent_id, now=now)
    if isinstance(verdict, GiveAgain) and gate.is_shut_out(agent_id):
        return Refuse(SHUT_OUT)
    return verdict


def _key(result: WorkResult) -> tuple[UUID, int, int, UUID]:
    return (result.task_id, result.fence, result.attempt, result.agent_id)


def _chance() -> float:
    return random.random()  # noqa: S311 - spreads retries over time, guards nothing


def _unfenced(result: WorkResult, task: Task | None) -> WorkResult:
    """Return a result as if it were that of the live lease, whosever it is."""
    if task is None or task.status is not Status.RUNNING:
        return result
    return result.model_copy(update={"fence": task.fence, "attempt": task.attempt, "agent_id": task.agent_id})


def _lost(task: Task, status: Status | None) -> End:
    return End(task.task_id, task.fence, outcome="lost", status=status, error_code=LOST_CODE, error_message=AGENT_LOST)
