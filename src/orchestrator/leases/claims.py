"""Claims that are judged together in one transaction, in which everything that may be in their way is known."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from common.messages import ClaimedTask, RefusedTask
from orchestrator.approvals.asking import Consent
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.leases import events as told
from orchestrator.leases import queries
from orchestrator.leases.answers import refused
from orchestrator.leases.rules import (
    REFUSAL_MEMORY,
    REFUSED_LATELY,
    Give,
    GiveAgain,
    Refuse,
    judge_claim,
    rest_after,
)
from orchestrator.outbox import queries as outbox
from orchestrator.placement.bounds import Bounds
from orchestrator.registry import queries as registry
from orchestrator.registry.gate import Gate
from orchestrator.registry.rules import SHUT_OUT, BreakerPolicy
from orchestrator.tasks import queries as tasks
from orchestrator.tasks.model import Task

# How long a ticket rests that came to an agent which may not have its task. That agent may take it again at once: what
# it is told comes later than the ticket, and a host whose clock is ahead takes a pause for over.
REST = timedelta(seconds=1)
# Who claims, and what.
Wanted = tuple[UUID, ClaimedTask]


@dataclass(frozen=True, slots=True)
class Leased:
    """A task that an agent got by a claim, as it was before; `attempt` and `fence` are those of the lease."""

    agent_id: UUID
    claim: ClaimedTask
    task: Task
    attempt: int
    fence: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of some claims. `repeated` were granted before; `withheld` are tasks that nobody may run."""

    leased: Sequence[Leased] = ()
    repeated: Sequence[Leased] = ()
    refused: Sequence[tuple[UUID, RefusedTask]] = ()
    withheld: frozenset[UUID] = field(default_factory=frozenset)


class Claims:
    """Judges claims. `lease` is how long a task is given away; `breaker` is for agents that fail in a row."""

    def __init__(self, pool: Pool, *, lease: timedelta, breaker: BreakerPolicy) -> None:
        self._pool = pool
        self._lease = lease
        self._breaker = breaker

    async def judge(self, wanted: Sequence[Wanted]) -> Judged:
        """Lease what is free, first come first served, and say why the others get nothing."""
        refusals: list[tuple[UUID, RefusedTask]] = []
        repeated: list[Leased] = []
        barred: list[UUID] = []
        resting: dict[UUID, timedelta] = {}
        async with transaction(self._pool) as db:
            known = await tasks.lock_claimable(db, sorted({task.task_id for _, task in wanted}))
            now = await tasks.time_of(db, known.values())
            claimers = {agent_id for agent_id, _ in wanted}
            gate = await Gate.open(db, claimers, now=now, policy=self._breaker)
            consent = await Consent.open(db, known.values(), now=now)
            pools = {agent_id: one.agent_type for agent_id, one in (await registry.known(db, claimers)).items()}
            bounds = await Bounds.open(db, {task.aim for task in known.values()}, claimers)
            refused_lately = await self._refused_lately(db, known, claimers)
            winners: dict[UUID, Wanted] = {}
            for agent_id, claim in wanted:
                task = known.get(claim.task_id)
                match _judge(task, claim, agent_id, pools.get(agent_id), now, gate, consent):
                    case Give() if winners.get(claim.task_id) == (agent_id, claim):
                        pass  # asked twice at once, and granted once
                    case Give() if claim.task_id in winners:
                        refusals.append((agent_id, refused(claim, "another agent was first")))
                    case Give():
                        task = known[claim.task_id]
                        reason = consent.withheld(task) or bounds.refusal(task.aim, agent_id)
                        ago = refused_lately.get(agent_id, {}).get(task.task_id)
                        if reason is None and ago is not None:
                            reason = REFUSED_LATELY
                            resting[task.task_id] = rest_after(ago)
                        if reason is None and (reason := await gate.refusal(db, agent_id)) is None:
                            winners[claim.task_id] = (agent_id, claim)
                        else:
                            refusals.append((agent_id, refused(claim, reason)))
                            barred.append(claim.task_id)
                    case GiveAgain():
                        assert task is not None
                        repeated.append(Leased(agent_id, claim, task, task.attempt, task.fence))
                    case Refuse(reason=reason):
                        refusals.append((agent_id, refused(claim, reason)))
            await outbox.add_orders(db, gate.orders())
            # The ticket is used up and nobody runs the task.
            at_once = [task_id for task_id in barred if task_id not in winners and task_id not in resting]
            await outbox.make_due(db, at_once, after=REST)
            # The same agent may take the ticket again at once.
            for rest in set(resting.values()):
                alike = [task_id for task_id, other in resting.items() if other == rest and task_id not in winners]
                await outbox.make_due(db, alike, after=rest)
            await consent.use(db, [known[task_id] for task_id in winners])
            leased = await self._lease_out(db, known, winners)
        return Judged(leased, repeated, refusals, frozenset(consent.found))

    async def _refused_lately(
        self, db: Connection, known: Mapping[UUID, Task], claimers: Collection[UUID]
    ) -> Mapping[UUID, Mapping[UUID, timedelta]]:
        if not any(task.unstarted for task in known.values()):
            return {}
        return await queries.refused_lately(db, claimers, within=REFUSAL_MEMORY)

    async def _lease_out(
        self, db: Connection, known: Mapping[UUID, Task], winners: Mapping[UUID, Wanted]
    ) -> list[Leased]:
        if not winners:
            return []
        rows = [(task_id, agent_id, claim.claim_id, self._lease) for task_id, (agent_id, claim) in winners.items()]
        leased = [
            Leased(*winners[task_id], known[task_id], attempt, fence)
            for task_id, (attempt, fence) in (await queries.claim(db, rows)).items()
        ]
        await events.append(db, *(told.claimed(one.task, one.agent_id, one.attempt) for one in leased))
        return leased


def _judge(
    task: Task | None,
    claim: ClaimedTask,
    agent_id: UUID,
    pool: str | None,
    now: datetime,
    gate: Gate,
    consent: Consent,
) -> Give | GiveAgain | Refuse:
    verdict = judge_claim(task, claim, agent_id=agent_id, pool=pool, now=now)
    if not isinstance(verdict, GiveAgain):
        return verdict
    if gate.is_shut_out(agent_id):
        return Refuse(SHUT_OUT)
    assert task is not None
    # The first answer was lost, so that the work would begin only now.
    reason = consent.withheld(task)
    return verdict if reason is None else Refuse(reason)
