"""Store what is new, and have it go at once: to an agent that is known to be idle, or as a ticket to its pool."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from common.lifecycle import Status
from common.messages import GrantedTask
from common.safeguards import Safeguard, is_on
from orchestrator.database.pool import COLLIDED, Pool
from orchestrator.dispatch import queries
from orchestrator.dispatch.standing import StandingClaim, StandingClaims
from orchestrator.events.model import NewEvent
from orchestrator.events.own import OwnEvents
from orchestrator.keys.model import has_keys
from orchestrator.leases import events as leased
from orchestrator.leases.given import GivenLeases
from orchestrator.leases.grants import granted
from orchestrator.outbox.model import NewTicket
from orchestrator.outbox.room import Room
from orchestrator.tasks import events as told
from orchestrator.tasks.model import Identity, NewTask
from orchestrator.tasks.service import TaskService, identity_of, ticket_of

# The attempt and the fence of a task that is leased as it is stored.
FIRST = 1
# A caller is told to try again rather than kept waiting for a ledger that is gone without a word.
ANSWER_SECONDS = 5.0
# How often tasks are tried to be stored that others store at the same moment.
COLLISIONS = 3

Stored = TypeVar("Stored")


@dataclass(slots=True)
class Dispatched:
    """What became of tasks: for each of them an answer, in order, and what is to be published now.

    `tickets` count as published; `grants` are leased to their agents. `left` are those that somebody has to look after.
    """

    answers: Sequence[Identity | BaseException] = ()
    tickets: list[NewTicket] = field(default_factory=list)
    grants: list[tuple[UUID, GrantedTask]] = field(default_factory=list)
    left: list[NewTask] = field(default_factory=list)


class DispatchService:
    """Stores tasks. `lease` is for how long an agent gets one, `ttl` how long a published ticket counts."""

    def __init__(
        self,
        pool: Pool,
        tasks: TaskService,
        standing: StandingClaims,
        room: Room,
        given: GivenLeases,
        own: OwnEvents,
        *,
        lease: timedelta,
        ageing: timedelta,
        ttl: timedelta,
        max_output_bytes: int,
    ) -> None:
        self._pool = pool
        self._tasks = tasks
        self._standing = standing
        self._room = room
        self._given = given
        self._own = own
        self._lease = lease
        self._ageing = ageing
        self._ttl = ttl
        self._max_output = max_output_bytes

    async def dispatch(self, tasks: Sequence[NewTask], *, by: str) -> Dispatched:
        """Store new tasks and recognise old ones; the answer of each is its identity, or why it has none.

        Raises what kept everything from being stored, and `TimeoutError` when the ledger does not answer.
        """
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._dispatch(tasks, by=by)

    async def _dispatch(self, tasks: Sequence[NewTask], *, by: str) -> Dispatched:
        done = Dispatched()
        answers: dict[int, Identity | BaseException] = {}
        plain = [task for task in tasks if _is_plain(task)] if _are_distinct(tasks) and _is_safe() else []
        if plain:
            new = await _again_if_collided(lambda: self._store(plain, done, by=by))
            answers = {id(task): identity_of(task) for task in plain if task.task_id in new}
        # What is known already, or has to do with keys, aims and approvals.
        rest = [task for task in tasks if id(task) not in answers]
        if rest:
            try:
                others, tickets = await _again_if_collided(
                    lambda: self._tasks.dispatch_at_once(rest, by=by, room=self._room)
                )
            except Exception as failure:
                if not answers:
                    raise
                # What was stored before goes its way all the same.
                others, tickets = [failure] * len(rest), []
            answers |= {id(task): answer for task, answer in zip(rest, others, strict=True)}
            done.tickets += tickets
            done.left += rest
        done.answers = [answers[id(task)] for task in tasks]
        return done

    async def _store(self, tasks: Sequence[NewTask], done: Dispatched, *, by: str) -> Mapping[UUID, bool]:
        """Store plain tasks; return those that were new, and whether each was leased."""
        claims = self._claims_for(tasks)
        try:
            with self._room.taking() as places:
                at_once, _ = places.divide(ticket_of(task) for task in tasks if task.task_id not in claims)
                events = [event for task in tasks for event in _told(task, claims.get(task.task_id), by)]
                async with self._pool.acquire() as db:
                    with self._own.writing():
                        new, written = await queries.store(
                            db,
                            tasks,
                            claims,
                            {ticket.task_id for ticket in at_once},
                            events,
                            lease=self._lease,
                            ageing=self._ageing,
                            ttl=self._ttl,
                        )
                        self._own.add(events, written)
                places.keep_only(new)
        finally:
            # Of those that were perhaps used the agents ask.
            self._standing.settle(claims.values())
        self._standing.give_back([claim for task_id, claim in claims.items() if task_id not in new])
        done.tickets += places.tickets
        for task in tasks:
            if new.get(task.task_id):
                claim = claims[task.task_id]
                done.grants.append((claim.agent_id, self._granted(task, claim)))
                self._given.add(task, claim.agent_id, attempt=FIRST, fence=FIRST)
            elif task.task_id in new:
                done.left.append(task)
        return new

    def _claims_for(self, tasks: Sequence[NewTask]) -> dict[UUID, StandingClaim]:
        """Take a claim for each task for which there is one, the most urgent first.

        While tickets of a pool wait, its claims are theirs; work that not all of its agents offer is for the relay.
        """
        claims: dict[UUID, StandingClaim] = {}
        for task in sorted(tasks, key=lambda task: -task.priority):
            if not (self._room.is_open(task.agent_type) and self._room.is_for_all(task.agent_type, task.work_type)):
                continue
            if (claim := self._standing.take(task.agent_type)) is not None:
                claims[task.task_id] = claim
        return claims

    def _granted(self, task: NewTask, claim: StandingClaim) -> GrantedTask:
        return granted(
            task,
            claim.claim_id,
            attempt=FIRST,
            fence=FIRST,
            lease=self._lease,
            max_output_bytes=self._max_output,
        )


async def _again_if_collided(store: Callable[[], Awaitable[Stored]]) -> Stored:
    """Try again when another orchestrator stores the same ids at the same moment, in a different order."""
    for _ in range(COLLISIONS - 1):
        with suppress(*COLLIDED):
            return await store()
    return await store()


def _told(task: NewTask, claim: StandingClaim | None, by: str) -> list[NewEvent]:
    return [told.dispatched(task, by), *([] if claim is None else [leased.claimed(task, claim.agent_id, FIRST)])]


def _is_plain(task: NewTask) -> bool:
    """Say whether a task waits for nothing and may go to everybody of its pool."""
    return task.status is Status.PENDING and task.effective_approval_id is None and not task.aim and not has_keys(task)


def _are_distinct(tasks: Sequence[NewTask]) -> bool:
    """Say whether no two have an id in common, so that each row that is stored is that of one of them."""
    return len({task.task_id for task in tasks}) == len({task.request_id for task in tasks}) == len(tasks)


def _is_safe() -> bool:
    # A test that removes one of these wants to see what it is for.
    return is_on(Safeguard.DEDUPE) and is_on(Safeguard.OUTBOX)
