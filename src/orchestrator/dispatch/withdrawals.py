"""Say what became of standing claims that their agents have withdrawn."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from common.messages import Grant, GrantedTask, Refusal, RefusedTask
from orchestrator.database.pool import Pool
from orchestrator.dispatch import queries
from orchestrator.leases.answers import Answer
from orchestrator.leases.grants import granted
from orchestrator.tasks import queries as tasks

NOT_TAKEN = "nothing was leased to this claim"


class Withdrawals:
    """Asks the ledger. A claim that was taken, and whose grant was lost, is answered with that grant once more."""

    def __init__(self, pool: Pool, *, lease: timedelta, max_output_bytes: int) -> None:
        self._pool = pool
        self._lease = lease
        self._max_output = max_output_bytes

    async def settle(self, withdrawn: Sequence[tuple[UUID, UUID]]) -> list[Answer]:
        """Return the answers for (agent_id, claim_id), one for each agent; none of the claims is under way."""
        async with self._pool.acquire() as db:
            taken = await queries.taken(db, withdrawn)
            known = await tasks.get(db, list(taken.values())) if taken else {}
        grants: dict[UUID, list[GrantedTask]] = {}
        refusals: dict[UUID, list[RefusedTask]] = {}
        for agent_id, claim_id in withdrawn:
            task_id = taken.get((agent_id, claim_id))
            task = None if task_id is None else known.get(task_id)
            if task is None or task.claim_id != claim_id:
                refusal = RefusedTask(claim_id=claim_id, task_id=None, reason=NOT_TAKEN)
                refusals.setdefault(agent_id, []).append(refusal)
                continue
            grant = granted(
                task,
                claim_id,
                attempt=task.attempt,
                fence=task.fence,
                lease=self._lease,
                max_output_bytes=self._max_output,
            )
            grants.setdefault(agent_id, []).append(grant)
        return [
            Answer(
                agent_id,
                Grant(tasks=grants[agent_id]) if agent_id in grants else None,
                Refusal(tasks=refusals[agent_id]) if agent_id in refusals else None,
            )
            for agent_id in dict.fromkeys(agent_id for agent_id, _ in withdrawn)
        ]
