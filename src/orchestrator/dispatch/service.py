"""Store what is new, and have it go at once to an agent that has credit for it."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from common.lifecycle import Status
from orchestrator.database.pool import COLLIDED, Pool
from orchestrator.dispatch import queries
from orchestrator.events.model import NewEvent
from orchestrator.keys.model import has_keys
from orchestrator.leases import events as leased
from orchestrator.leases.credits import Credits
from orchestrator.leases.given import GivenLeases
from orchestrator.leases.model import Leased
from orchestrator.tasks import events as told
from orchestrator.tasks.model import Identity, NewTask
from orchestrator.tasks.service import TaskService, identity_of

# The attempt of a task that is leased as it is stored.
FIRST = 1
# A caller is told to try again rather than kept waiting for a ledger that is gone without a word.
ANSWER_SECONDS = 5.0
# How often tasks are tried to be stored that others store at the same moment.
COLLISIONS = 3

Stored = TypeVar("Stored")


@dataclass(slots=True)
class Dispatched:
    """The answers to tasks that were handed in, in their order, and the leases that are to be sent now.

    `waits`: some of them may wait for an agent, so that it is worth looking for one.
    """

    answers: Sequence[Identity | BaseException] = ()
    leased: list[Leased] = field(default_factory=list)
    waits: bool = False


class DispatchService:
    """Stores tasks. `lease` is for how long an agent gets one, `ageing` how long a wait is worth one priority."""

    def __init__(
        self,
        pool: Pool,
        tasks: TaskService,
        credits: Credits,
        given: GivenLeases,
        *,
        lease: timedelta,
        ageing: timedelta,
    ) -> None:
        self._pool = pool
        self._tasks = tasks
        self._credits = credits
        self._given = given
        self._lease = lease
        self._ageing = ageing

    async def dispatch(self, tasks: Sequence[NewTask], *, by: str) -> Dispatched:
        """Store new tasks and recognise old ones; the answer of each is its identity, or why it has none.

        Raises what kept everything from being stored, and `TimeoutError` when the ledger does not answer.
        """
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._dispatch(tasks, by=by)

    async def _dispatch(self, tasks: Sequence[NewTask], *, by: str) -> Dispatched:
        done = Dispatched()
        answers: dict[int, Identity | BaseException] = {}
        plain = [task for task in tasks if _is_plain(task)] if _are_distinct(tasks) else []
        if plain:
            new = await _again_if_collided(lambda: self._store(plain, done, by=by))
            answers = {id(task): identity_of(task) for task in plain if task.task_id in new}
        # What is known already, or has to do with keys, aims and approvals.
        rest = [task for task in tasks if id(task) not in answers]
        if rest:
            done.waits = True
            try:
                others = await _again_if_collided(lambda: self._tasks.dispatch(rest, by=by))
            except Exception as failure:
                if not answers:
                    raise
                # What was stored before goes its way all the same.
                others = [failure] * len(rest)
            answers |= {id(task): answer for task, answer in zip(rest, others, strict=True)}
        done.answers = [answers[id(task)] for task in tasks]
        return done

    async def _store(self, tasks: Sequence[NewTask], done: Dispatched, *, by: str) -> Collection[UUID]:
        """Store plain tasks; return those that were new."""
        chosen = self._choose(tasks)
        events = [event for task in tasks for event in _told(task, chosen.get(task.task_id), by)]
        async with self._pool.acquire() as db:
            stored = await queries.store(db, tasks, chosen, events, lease=self._lease, ageing=self._ageing)
        self._credits.learn(stored.rooms)
        rooms = {room.agent_id: room for room in stored.rooms}
        for task in tasks:
            session = stored.claims.get(task.task_id)
            if session is not None:
                agent_id = chosen[task.task_id]
                room = rooms[agent_id]
                done.leased.append(Leased(task, agent_id, session, FIRST, self._lease, room.credit, room.granted))
                self._given.add(task, agent_id, attempt=FIRST)
            elif task.task_id in stored.claims:
                self._credits.waits_in(task.agent_type)
                done.waits = True
        return stored.claims.keys()

    def _choose(self, tasks: Sequence[NewTask]) -> dict[UUID, UUID]:
        """Return an agent for each task for which one has credit, as far as is known, the most urgent first."""
        chosen: dict[UUID, UUID] = {}
        for task in sorted(tasks, key=lambda task: -task.effective_precedence):
            if (agent_id := self._credits.take(task.agent_type, task.work_type)) is not None:
                chosen[task.task_id] = agent_id
        return chosen


async def _again_if_collided(store: Callable[[], Awaitable[Stored]]) -> Stored:
    """Try again when another orchestrator stores the same ids at the same moment, in a different order."""
    for _ in range(COLLISIONS - 1):
        with suppress(*COLLIDED):
            return await store()
    return await store()


def _told(task: NewTask, agent_id: UUID | None, by: str) -> list[NewEvent]:
    return [told.dispatched(task, by), *([] if agent_id is None else [leased.claimed(task, agent_id, FIRST)])]


def _is_plain(task: NewTask) -> bool:
    """Say whether a task waits for nothing and may go to everybody of its pool."""
    is_free = task.status is Status.PENDING and task.effective_approval_id is None and not task.pause
    return is_free and not task.aim and not has_keys(task)


def _are_distinct(tasks: Sequence[NewTask]) -> bool:
    """Say whether no two have an id in common, so that each row that is stored is that of one of them."""
    return len({task.task_id for task in tasks}) == len({task.request_id for task in tasks}) == len(tasks)
