"""Give tasks that wait to agents that take work: the only place that decides which agent gets which task.

New work for which an agent has credit is leased as it is stored (`orchestrator.dispatch`); everything else waits in the
ledger and is leased here.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from orchestrator.approvals.asking import Consent
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.leases import events as told
from orchestrator.leases import queries, waiting_queries
from orchestrator.leases.credits import Credits
from orchestrator.leases.model import Asker, Leased, Line
from orchestrator.leases.pairing import line_of, pair, suitable
from orchestrator.placement import queries as placement
from orchestrator.placement.model import Aim
from orchestrator.registry.model import Room
from orchestrator.registry.rules import BreakerPolicy
from orchestrator.settings import STANDARD
from orchestrator.tasks import queries as tasks

log = logging.getLogger(__name__)

# Maximum number of tasks of one line that one transaction leases, and of agents that it compares for them.
MOST_AT_ONCE = 500
MOST_AGENTS = 500
# Maximum number of tasks that are put back into their lines at a time.
MOST_WOKEN = 1000


@dataclass(slots=True)
class Given:
    """The outcome of one transaction that gives work.

    `withheld` are tasks that must not run, `refused` those that only agents which refused them just now could take; in
    `waiting` lines more may wait for room. `is_cut_short`: agents may have room that its limits kept it from giving.
    """

    leased: list[Leased] = field(default_factory=list)
    withheld: set[UUID] = field(default_factory=set)
    refused: Collection[UUID] = ()
    waiting: Collection[Line] = ()
    rooms: Sequence[Room] = ()
    is_cut_short: bool = False

    @property
    def is_more_to_give(self) -> bool:
        """Whether another turn at once is worth its statements."""
        has_room = self.is_cut_short or any(one.room > 0 for one in self.rooms)
        return bool(self.withheld or self.refused or (self.leased and self.waiting and has_room))


class Giving:
    """Leases tasks. `lease` is for how long an agent on the bus gets one without renewing it."""

    def __init__(
        self,
        pool: Pool,
        credits: Credits,
        *,
        lease: timedelta,
        breaker: BreakerPolicy | None = None,
        offline_after: timedelta = STANDARD.agent_offline_after,
    ) -> None:
        self._pool = pool
        self._credits = credits
        self._lease = lease
        self._trial = (breaker or BreakerPolicy()).pause
        self._offline_after = offline_after

    async def by_credit(self) -> Given:
        """Lease what waits, best first, to the agents that have credit for it; what they refused just now rests.

        Nothing is leased while the broker is away.
        """
        if not self._credits.can_send:
            return Given()
        async with self._pool.acquire() as db:
            lines = await waiting_queries.lines(db)
        if not lines:
            self._credits.waiting(())
            return Given()
        async with transaction(self._pool) as db:
            await waiting_queries.one_giver_at_a_time(db)
            askers = await waiting_queries.askers(
                db, lines, lease=self._lease, offline_after=self._offline_after, most=MOST_AGENTS
            )
            given = await self._give(db, lines, askers, rests=True)
        self._credits.learn(given.rooms)
        self._credits.waiting(given.waiting)
        return given

    async def to(self, askers: Sequence[Asker], *, besides: Collection[UUID] = ()) -> Given:
        """Lease what waits to agents that ask over HTTP, in this order; not `besides`, which they refused just now."""
        await self.wake()
        pools = {asker.pool for asker in askers}
        async with transaction(self._pool) as db:
            lines = [line for line in await waiting_queries.lines(db) if line.pool in pools]
            return await self._give(db, lines, askers, besides=besides)

    async def wake(self) -> None:
        """Put tasks whose time has come back into their lines."""
        async with self._pool.acquire() as db:
            await waiting_queries.wake(db, limit=MOST_WOKEN)

    async def _give(
        self,
        db: Connection,
        lines: Sequence[Line],
        askers: Sequence[Asker],
        *,
        besides: Collection[UUID] = (),
        rests: bool = False,
    ) -> Given:
        given = Given(waiting=lines)
        if not askers:
            return given
        keys = {line.aim for line in lines if line.aim}
        aims = await placement.get(db, keys) if keys else {}
        # What no agent that is there may take holds up nothing.
        lines = given.waiting = [line for line in lines if not line.aim or suitable(line, aims.get(line.aim), askers)]
        most = _most_of_each(lines, askers, aims)
        found = await waiting_queries.waiting(db, most, besides=besides) if most else []
        if not found:
            given.waiting = [line for line in lines if line not in most]
            return given
        consent = await Consent.open(db, found, now=await tasks.time_of(db, found))
        allowed = [task for task in found if consent.withheld(task) is None]
        given.withheld = set(consent.found)
        returned = [task.task_id for task in allowed if task.unstarted]
        refusals = await waiting_queries.refusals(db, returned) if returned else {}
        paired = pair(allowed, askers, aims, refusals)
        given.refused = set(paired.resting)
        if rests:
            await waiting_queries.rest(db, paired.resting)
        if not paired.pairs:
            return given
        events = [told.claimed(task, asker.agent_id, task.attempt + 1) for task, asker in paired.pairs]
        leased, given.rooms = await queries.lease(db, paired.pairs, events, trial=self._trial)
        rooms = {room.agent_id: room for room in given.rooms}
        given.leased = [
            Leased(
                task,
                asker.agent_id,
                asker.claim_id,
                task.attempt + 1,
                asker.lease,
                rooms[asker.agent_id].credit,
                rooms[asker.agent_id].granted,
            )
            for task, asker in paired.pairs
            if task.task_id in leased
        ]
        await consent.use(db, [task for task, _ in paired.pairs if task.task_id in leased])
        given.is_cut_short = (
            len(leased) < len(paired.pairs) or len(askers) >= MOST_AGENTS or MOST_AT_ONCE in most.values()
        )
        given.waiting = _still_waiting(lines, most, [line_of(task) for task in found], len(leased) < len(found))
        return given


def _still_waiting(
    lines: Sequence[Line], most: Mapping[Line, int], found: Sequence[Line], some_are_left: bool
) -> list[Line]:
    """Return the lines in which tasks may wait that are due: those that were not read to their end."""
    if some_are_left:
        return list(lines)
    count = Counter(found)
    return [line for line in lines if line not in most or count[line] >= most[line]]


def _most_of_each(lines: Iterable[Line], askers: Sequence[Asker], aims: Mapping[str, Aim]) -> dict[Line, int]:
    """Return how many tasks of each line the agents have room for; lines for which there is none are left out."""
    most: dict[Line, int] = {}
    for line in lines:
        room = sum(asker.room for asker in suitable(line, aims.get(line.aim), askers))
        if room > 0:
            most[line] = min(room, MOST_AT_ONCE)
    return most
