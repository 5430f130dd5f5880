"""Put in order what an earlier life of this agent left behind, before this one takes any work."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from uuid import UUID

from agents.executors.base import Outcome
from agents.handover import Handover
from agents.journal import Ended, Journal, Unended
from agents.orphans import end_orphans
from agents.results import work_result
from agents.spool import Spool
from agents.spool_lines import Key, WrittenResult
from common.errors import ErrorCode
from common.messages import GrantedTask, WorkRequest

log = logging.getLogger(__name__)

RESTARTED = "The agent restarted while the work was running."


async def recover(
    left: Sequence[Unended],
    *,
    agent_id: UUID,
    spooled: Collection[Key],
    spool: Spool,
    journal: Journal,
    handover: Handover,
) -> list[Key]:
    """Kill what still runs, and owe a result for every attempt that has none; return those that are owed newly.

    Nobody owns that work any more, and without a result the task would wait for the end of its lease.
    """
    owed = []
    for one in left:
        started = one.started
        killed = await asyncio.to_thread(end_orphans, one)
        log.warning(
            "work.left_behind",
            extra={"task_id": started.task_id, "trace_id": started.trace_id, "fence": started.fence, "killed": killed},
        )
        key = Key(started.task_id, started.fence)
        outcome = Outcome.failed(RESTARTED, code=ErrorCode.AGENT_UNAVAILABLE, retryable=True)
        if key not in spooled:
            seconds = max(0.0, (datetime.now(UTC) - started.at).total_seconds())
            # How much it wrote is not known any more, so nothing is said about it.
            result = work_result(agent_id, _grant(one), outcome, duration_ms=int(seconds * 1000), output_bytes={})
            await handover.keep(WrittenResult.of(result))
            owed.append(key)
            ended = Ended(
                task_id=started.task_id,
                fence=started.fence,
                status=outcome.status,
                error_code=outcome.error_code,
                reason=RESTARTED,
                killed=killed,
            )
        else:
            # It had ended before; only that line of the journal was lost. The result says how.
            spooled_result = await asyncio.to_thread(spool.read, key)
            status = outcome.status if spooled_result is None else spooled_result.envelope().payload.status
            ended = Ended(task_id=started.task_id, fence=started.fence, status=status, killed=killed)
        journal.ended(ended)
    return owed


def _grant(left: Unended) -> GrantedTask:
    """Return as much of the grant as the journal has kept; that is all that a result needs."""
    started = left.started
    return GrantedTask(
        claim_id=started.task_id,
        work=WorkRequest(task_id=started.task_id, work_type=started.work_type),
        trace_id=started.trace_id,
        request_id=started.request_id,
        attempt=started.attempt,
        fence=started.fence,
        lease_seconds=1,
    )
