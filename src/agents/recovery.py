"""Put in order what an earlier life of this agent left behind, before this one takes any work."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from agents.contact.hearing import Hearing
from agents.disk.journal import Ended, Journal, Started, Unended
from agents.disk.spool import Spool
from agents.disk.spool_lines import Key, WrittenResult
from agents.executors.base import Outcome
from agents.processes.orphans import end_orphans
from agents.repairs.rules import ending_of
from agents.repairs.state import Stage
from agents.repairs.store import StateUnreadable, Store
from agents.tasks.availability import Availability
from agents.tasks.handover import Handover
from agents.tasks.results import work_result
from common.compose import COMPOSE_REPAIR
from common.errors import ErrorCode
from common.messages import GrantedTask, ResultStatus, WorkRequest

log = logging.getLogger(__name__)

RESTARTED = "The agent restarted while the work was running."

Recover = Callable[[Sequence[Unended]], Awaitable[list[Key]]]


async def recover(
    left: Sequence[Unended],
    *,
    agent_id: UUID,
    spooled: Collection[Key],
    spool: Spool,
    journal: Journal,
    handover: Handover,
    repairs: Store | None = None,
) -> list[Key]:
    """Kill what still runs, and owe a result for every attempt that has none; return those that are owed newly.

    Nothing owns that work any more, and without a result the task would wait for the end of its lease. An attempt that
    cannot be recovered is logged and tried again at the next start. `repairs` knows how repairs ended, which this host
    ends by itself (`agents.repairs.settler`).
    """
    owed = []
    for one in left:
        started = one.started
        key = Key(started.task_id, started.attempt)
        try:
            killed = await asyncio.to_thread(end_orphans, one)
            log.warning("work.left_behind", extra={**_named(started), "killed": killed})
            if key in spooled:
                # It had ended before; only that line of the journal was lost. The result says how.
                result = await asyncio.to_thread(spool.read, key)
                status = ResultStatus.FAILED if result is None else result.envelope().payload.status
                ended = Ended(task_id=started.task_id, attempt=started.attempt, status=status, killed=killed)
            else:
                ended = await _owe(one, killed, agent_id, handover, repairs)
                owed.append(key)
        except OSError as error:
            log.exception("work.not_recovered", extra={**_named(started), "reason": str(error)})
        else:
            journal.ended(ended)
    return owed


async def _owe(left: Unended, killed: list[int], agent_id: UUID, handover: Handover, repairs: Store | None) -> Ended:
    """Keep the result of an attempt that the agent's end has cut off. Raises `OSError`."""
    started = left.started
    if started.work_type == COMPOSE_REPAIR:
        outcome = await asyncio.to_thread(_outcome_of_repair, started, repairs)
    else:
        outcome = Outcome.failed(RESTARTED, code=ErrorCode.AGENT_UNAVAILABLE, retryable=True)
    seconds = max(0.0, (datetime.now(UTC) - started.at).total_seconds())
    # How much it wrote is not known any more, so nothing is said about it.
    result = work_result(agent_id, _grant(left), outcome, duration_ms=int(seconds * 1000), output_bytes={})
    await handover.keep(WrittenResult.of(result))
    return Ended(
        task_id=started.task_id,
        attempt=started.attempt,
        status=outcome.status,
        error_code=outcome.error_code,
        reason=RESTARTED,
        killed=killed,
    )


def _outcome_of_repair(started: Started, repairs: Store | None) -> Outcome:
    """Return how a repair ended, or that it is taken back now. It is not tried again: its run says what comes next."""
    try:
        unit = None if repairs is None else repairs.find(started.task_id, started.attempt)
    except StateUnreadable as problem:
        return Outcome.failed(f"{RESTARTED} {problem}")
    if unit is None:
        return Outcome.failed(f"{RESTARTED} The repair had not begun.")
    if unit.result is None:
        said = "Nothing had been changed." if unit.stage is Stage.NEW else "This host takes the repair back by itself."
        return Outcome.failed(f"{RESTARTED} {said}")
    status, message = ending_of(unit)
    return Outcome(status, error_message=message, result=unit.result.model_dump(mode="json"))


def _named(started: Started) -> dict[str, object]:
    return {"task_id": started.task_id, "trace_id": started.trace_id, "attempt": started.attempt}


def _grant(left: Unended) -> GrantedTask:
    """Return as much of the grant as the journal has kept; that is all that a result needs."""
    started = left.started
    return GrantedTask(
        claim_id=started.task_id,
        work=WorkRequest(task_id=started.task_id, work_type=started.work_type),
        trace_id=started.trace_id,
        request_id=started.request_id,
        attempt=started.attempt,
        lease_seconds=1,
    )


class LateRecovery:
    """Puts in order attempts whose process may still run, on another host or in another container.

    An earlier process that still runs is heard by the orchestrator, which then refuses this one. So it waits until the
    answers to this process span `after`.
    """

    def __init__(
        self,
        doubtful: Sequence[Unended],
        recover: Recover,
        handover: Handover,
        hearing: Hearing,
        availability: Availability,
        *,
        after: timedelta,
    ) -> None:
        self._doubtful = doubtful
        self._recover = recover
        self._handover = handover
        self._hearing = hearing
        self._availability = availability
        self._after = after

    async def run(self) -> None:
        if not self._doubtful:
            return
        log.info("work.recovered_later", extra={"attempts": len(self._doubtful), "after": self._after.total_seconds()})
        while not self._hearing.has_heard_for(self._after):
            await self._hearing.news.rung()
        if self._availability.refusal is None:
            await self._handover.send_left(await self._recover(self._doubtful))
