"""Claims of tasks that are free for anybody, by agents that nothing holds back."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from common.messages import ClaimedTask
from orchestrator.approvals.rules import withhold
from orchestrator.database.pool import Pool
from orchestrator.events.own import OwnEvents
from orchestrator.leases import events as told
from orchestrator.leases.claims import Leased, Wanted
from orchestrator.leases.plain import queries
from orchestrator.leases.plain.queries import Candidate
from orchestrator.leases.rules import Give, judge_claim


async def lease(pool: Pool, wanted: Iterable[Wanted], own: OwnEvents, *, lasts: timedelta) -> list[Leased]:
    """Lease what is plainly free. Whoever is left out may be refused, or get it by another way: nothing is said yet."""
    once = _claimed_by_one(wanted)
    if not once:
        return []
    async with pool.acquire() as db:
        found = await queries.claimable(db, [(claim.task_id, agent_id) for agent_id, claim in once])
        plain = [
            Leased(agent_id, claim, candidate.task, attempt=candidate.task.attempt + 1, fence=candidate.task.fence + 1)
            for agent_id, claim in once
            if (candidate := found.get(claim.task_id)) is not None and is_plain(candidate, claim, agent_id)
        ]
        if not plain:
            return []
        events = [told.claimed(one.task, one.agent_id, one.attempt) for one in plain]
        with own.writing():
            leased, written = await queries.lease(db, [(one.agent_id, one.claim) for one in plain], events, lasts=lasts)
            own.add(events, written)
    return [one for one in plain if one.task.task_id in leased]


def is_plain(candidate: Candidate, claim: ClaimedTask, agent_id: UUID) -> bool:
    """Say whether a claim wins, as far as was read, and nothing else has to be asked or done for it."""
    task, now = candidate.task, candidate.task.read_at
    return (
        now is not None
        and candidate.by_free
        and not task.aim
        and task.unstarted == 0
        and task.approval_id is None
        and isinstance(judge_claim(task, claim, agent_id=agent_id, pool=candidate.pool, now=now), Give)
        and withhold(task, None, now=now) is None
    )


def _claimed_by_one(wanted: Iterable[Wanted]) -> Sequence[Wanted]:
    """Return the claims of tasks that nobody else claims at once; one that was sent twice is the same."""
    claims: defaultdict[UUID, list[Wanted]] = defaultdict(list)
    for one in wanted:
        if one not in claims[one[1].task_id]:
            claims[one[1].task_id].append(one)
    return [same[0] for same in claims.values() if len(same) == 1]
