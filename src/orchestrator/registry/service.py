"""The use cases of the registry, one transaction each."""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from common.messages import AgentStatus, StatusUpdate
from common.orders import Leave
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.model import NewOrder
from orchestrator.registry import queries
from orchestrator.registry.model import Agent, Known, Room, Standing
from orchestrator.registry.rules import contradiction, is_replaced, second_process, standing_order
from orchestrator.settings import STANDARD

log = logging.getLogger(__name__)

TWO_PROCESSES = "an earlier process with the same agent id still runs: give each agent a state directory of its own"

WORKING = frozenset({AgentStatus.ONLINE, AgentStatus.BUSY})
BACK = {"reason": "it was started again, which ends its drain"}


class Recorded(NamedTuple):
    """What came of heartbeats: a Leave order for each agent of which two processes run, and the agents' room."""

    refused: Mapping[UUID, Leave]
    rooms: Sequence[Room]


class RegistryService:
    """Knows the agents. One that has been silent for `offline_after` counts as offline.

    A clock may differ from the database's by `clock_skew`; an agent whose clock differs by more gets no work.
    An agent that has been silent for `gone_after`, or was shut out, is not listed unless it is asked for.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        offline_after: timedelta,
        gone_after: timedelta | None = None,
        clock_skew: timedelta = STANDARD.clock_skew,
    ) -> None:
        self._pool = pool
        self._offline_after = offline_after
        self._gone_after = gone_after
        self._skew = clock_skew

    async def record(self, updates: Sequence[StatusUpdate]) -> Recorded:
        """Store heartbeats, in the order in which they came, and tell of agents that are new or changed."""
        latest = {update.agent_id: update for update in updates}
        async with self._pool.acquire() as db:
            known = await queries.known(db, latest)
            latest = {one: update for one, update in latest.items() if _fits(update, known.get(one))}
            as_before = await queries.beat(db, latest.values(), known, skew=self._skew)
        beaten = {room.agent_id for room in as_before}
        rest = {one: update for one, update in latest.items() if one not in beaten}
        refused, rooms = await self._take_in(rest, known) if rest else ({}, [])
        return Recorded(refused, [*as_before, *rooms])

    async def known(self, agent_id: UUID) -> Known | None:
        """Return the pool of an agent and its pinned labels; None when it neither enrolled nor registered."""
        async with self._pool.acquire() as db:
            return (await queries.known(db, [agent_id])).get(agent_id)

    async def _take_in(
        self, latest: Mapping[UUID, StatusUpdate], known: Mapping[UUID, Known]
    ) -> tuple[dict[UUID, Leave], list[Room]]:
        async with transaction(self._pool) as db:
            before = await queries.lock(db, list(latest))
            # Who was shut out is not known here any more, and so falls silent.
            latest = {one: update for one, update in latest.items() if one not in before or not before[one].shut_out}
            refused, found = await self._refuse_second_processes(db, latest, before)
            latest = {one: update for one, update in latest.items() if _counts(update, before.get(one), refused)}
            rooms = await queries.record(db, latest.values(), known, skew=self._skew)
            # Whoever was registered in another pool meanwhile is not stored, and so nothing is told of it.
            stored = {room.agent_id for room in rooms}
            latest = {one: update for one, update in latest.items() if one in stored}
            back = [agent_id for agent_id, update in latest.items() if _is_back(update, before.get(agent_id))]
            await queries.end_drains(db, back)
            after = await queries.standings(db, list(latest))
            await self._remind(db, latest, before)
            told = [_news(update, before.get(agent_id)) for agent_id, update in latest.items()]
            clocks = [_clock_news(before.get(agent_id), standing) for agent_id, standing in after.items()]
            resumed = [NewEvent(Kind.AGENT_RESUMED, str(agent_id), BACK, agent_id=agent_id) for agent_id in back]
            await events.append(db, *(event for event in (*told, *clocks) if event is not None), *resumed, *found)
        return refused, rooms

    async def _refuse_second_processes(
        self, db: Connection, updates: Mapping[UUID, StatusUpdate], before: Mapping[UUID, Standing]
    ) -> tuple[dict[UUID, Leave], list[NewEvent]]:
        """Return the order for each agent of which two processes run, and the events of those found just now."""
        refused: dict[UUID, Leave] = {}
        new: dict[UUID, UUID] = {}
        found: list[NewEvent] = []
        for agent_id, update in updates.items():
            standing = before.get(agent_id)
            boot_id = second_process(standing, boot_id=update.boot_id, sent_at=update.sent_at)
            if standing is None or boot_id is None:
                continue
            refused[agent_id] = Leave(boot_id=boot_id, reason=TWO_PROCESSES)
            if boot_id != standing.boot_refused:
                new[agent_id] = boot_id
                log.warning("agent.two_processes", extra={"agent_id": agent_id, "refused": boot_id})
                about = {"reason": TWO_PROCESSES, "refused": str(boot_id), "hostname": update.hostname}
                found.append(NewEvent(Kind.AGENT_DUPLICATE, "orchestrator", about, agent_id=agent_id))
        await queries.refuse_boots(db, new)
        await outbox.add_orders(db, [NewOrder(agent_id, order) for agent_id, order in refused.items()])
        return refused, found

    async def _remind(
        self, db: Connection, updates: Mapping[UUID, StatusUpdate], before: Mapping[UUID, Standing]
    ) -> None:
        """Tell agents again what was ordered, where they cannot know it or do not do it."""
        unaware = [agent_id for agent_id, update in updates.items() if _is_unaware(update, before.get(agent_id))]
        if not unaware:
            return
        now = await queries.now(db)
        standings = await queries.standings(db, unaware)
        orders = ((agent_id, standing_order(standing, now=now)) for agent_id, standing in standings.items())
        await outbox.add_orders(db, [NewOrder(agent_id, order) for agent_id, order in orders if order is not None])

    async def list_agents(
        self, *, agent_type: str | None, status: AgentStatus | None, with_gone: bool = False
    ) -> list[Agent]:
        """Return the agents that match; `with_gone`: also those that are gone."""
        async with self._pool.acquire() as db:
            return await queries.list_agents(
                db,
                agent_type=agent_type,
                status=status,
                offline_after=self._offline_after,
                gone_after=None if with_gone else self._gone_after,
            )

    async def is_online(self, agent_id: UUID) -> bool:
        """Say whether an agent was heard of lately."""
        async with self._pool.acquire() as db:
            return await queries.is_online(db, agent_id, offline_after=self._offline_after)

    async def mark_silent(self, *, limit: int) -> list[tuple[str, UUID]]:
        """Note agents that have fallen silent as offline, and return them: (agent_type, agent_id)."""
        async with transaction(self._pool) as db:
            silent = await queries.mark_silent(db, offline_after=self._offline_after, limit=limit)
            await events.append(
                db,
                *(
                    NewEvent(Kind.AGENT_STATUS, "orchestrator", {"status": AgentStatus.OFFLINE}, agent_id=agent_id)
                    for _, agent_id in silent
                ),
            )
        return silent


def _fits(update: StatusUpdate, known: Known | None) -> bool:
    """Return whether a heartbeat fits what never changes of its agent. The way it came by answers one that does not."""
    wrong = contradiction(str(update.agent_id), known, agent_type=update.agent_type, labels=update.labels)
    if wrong is not None:
        log.warning("agent.contradicts_its_identity", extra={"agent_id": update.agent_id, "reason": wrong})
    return wrong is None


def _counts(update: StatusUpdate, before: Standing | None, refused: Mapping[UUID, Leave]) -> bool:
    """Return whether a heartbeat is that of the process whose word counts.

    One of the process before, which does not show that it still runs, may have been on its way for long.
    """
    order = refused.get(update.agent_id)
    if order is not None:
        return order.boot_id != update.boot_id
    return not is_replaced(before, boot_id=update.boot_id)


def _clock_news(before: Standing | None, after: Standing) -> NewEvent | None:
    """Return the event of a clock that went wrong or was set right."""
    was_off = before is not None and before.clock_off_by is not None
    if was_off is (after.clock_off_by is not None):
        return None
    seconds = None if after.clock_off_by is None else round(after.clock_off_by.total_seconds(), 1)
    if seconds is not None:
        log.warning("agent.clock_off", extra={"agent_id": after.agent_id, "seconds_ahead": seconds})
    return NewEvent(Kind.AGENT_CLOCK, "orchestrator", {"off_by_seconds": seconds}, agent_id=after.agent_id)


def _is_back(update: StatusUpdate, before: Standing | None) -> bool:
    """Say whether an agent that was drained has left and was started again, which ends the drain."""
    return before is not None and before.draining and update.started_at > before.started_at


def _is_unaware(update: StatusUpdate, before: Standing | None) -> bool:
    """Say whether an agent that is held back may not know it: a new process, or one that does not drain."""
    if before is None or update.status not in WORKING:
        return False
    held = before.draining or before.paused_until is not None or before.tripped_until is not None
    return held and (before.draining or update.started_at != before.started_at)


def _news(update: StatusUpdate, before: Standing | None) -> NewEvent | None:
    actor = str(update.agent_id)
    if before is None or before.started_at != update.started_at:
        about = {"agent_type": update.agent_type, "hostname": update.hostname, "slots": update.slots}
        return NewEvent(Kind.AGENT_REGISTERED, actor, about, agent_id=update.agent_id)
    if before.status is not update.status:
        return NewEvent(Kind.AGENT_STATUS, actor, {"status": update.status}, agent_id=update.agent_id)
    return None
