"""Results that end their tasks and have no other consequence: for no key, no breaker, no dead letter."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeGuard
from uuid import UUID

from common.messages import Credit, WorkResult
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.events.model import NewEvent
from orchestrator.keys.model import has_keys
from orchestrator.leases import events as told
from orchestrator.leases import finish_queries
from orchestrator.leases.given import GivenLease, GivenLeases
from orchestrator.leases.model import End
from orchestrator.leases.rules import Attempt, Finish, Verdict, judge_completed, judge_result
from orchestrator.output.model import NewChunk
from orchestrator.output.service import chunks_of_result, written
from orchestrator.registry.model import Room
from orchestrator.registry.rules import agent_outcome
from orchestrator.tasks.model import Task


class Endings:
    """What one statement is about to write: of each task the pieces, then the end, and the events of both."""

    def __init__(self) -> None:
        self.ends: list[tuple[End, UUID, int]] = []
        self.pieces: list[tuple[NewChunk, int]] = []
        self.events: list[NewEvent] = []
        self.judged: list[tuple[WorkResult, Finish]] = []

    def add(self, task: Task | GivenLease, result: WorkResult, verdict: Finish) -> None:
        for piece in _pieces(result):
            self.events.append(written(piece.stored(trace_id=task.trace_id, request_id=task.request_id)))
            self.pieces.append((piece, len(self.events)))
        end = End.of(result, verdict.status)
        self.events.append(told.ended(task, end, verdict.status))
        self.ends.append((end, result.agent_id, len(self.events)))
        self.judged.append((result, verdict))


async def finish(
    pool: Pool,
    results: Collection[WorkResult],
    credits: Mapping[UUID, Credit],
    given: GivenLeases,
    *,
    policy: RetryPolicy,
) -> tuple[list[tuple[WorkResult, Finish]], list[Room] | None]:
    """Store the results that plainly count, and return them with the room of the agents that asked for work.

    Nothing is done yet about those that are left out. The room is None when nothing was stored, and no credit taken in.
    Of `given` leases nothing has to be read when their work is done.
    """
    # What an agent's results say of the agent is counted in their order, so all of them go one way.
    unwell = {result.agent_id for result in results if _is_the_agents_fault(result)}
    asked = [result for result in results if result.agent_id not in unwell]
    if not asked:
        return [], None
    endings = Endings()
    to_read: list[WorkResult] = []
    for result in asked:
        lease, completed = given.take(result), judge_completed(result)
        if lease is not None and completed is not None:
            endings.add(lease, result, completed)
        else:
            to_read.append(result)
    async with pool.acquire() as db:
        known = await finish_queries.reported(db, {(one.task_id, one.attempt) for one in to_read}) if to_read else {}
        for result in to_read:
            task, attempt = known.get((result.task_id, result.attempt), (None, None))
            if task is None or attempt is None or task.read_at is None:
                continue
            verdict = judge_result(task, attempt, result, now=task.read_at, policy=policy)
            if is_plain(verdict, task, attempt):
                endings.add(task, result, verdict)
        if not endings.ends:
            return [], None
        ended, rooms = await finish_queries.finish(db, endings.ends, endings.pieces, endings.events, credits)
    return [(result, verdict) for result, verdict in endings.judged if (result.task_id, result.attempt) in ended], rooms


def is_plain(verdict: Verdict, task: Task, attempt: Attempt) -> TypeGuard[Finish]:
    """Say whether a verdict ends its task, and nothing follows from that. The fault, if any, is not the agent's."""
    return isinstance(verdict, Finish) and not has_keys(task) and not attempt.by_failing


def _is_the_agents_fault(result: WorkResult) -> bool:
    outcome = agent_outcome(result.status, result.error_code, counts=result.started)
    return outcome is not None and outcome.infrastructure


def _pieces(result: WorkResult) -> Sequence[NewChunk]:
    """Return what there is to store, each place of a stream once."""
    pieces: dict[tuple[str, int], NewChunk] = {}
    for piece in chunks_of_result(result):
        if piece.text:
            pieces.setdefault((piece.chunk.stream, piece.chunk.offset), piece)
    return list(pieces.values())
