"""Say how this agent is, and pass on what it is ordered.

While something runs here, the server is asked more often than the agent beats, so that a cancel does not wait.
"""

import asyncio
import logging
from datetime import datetime, timedelta
from uuid import UUID

from agents.over_http.client import QueueClient, Refused, ServerAway, Told
from agents.over_http.held import HeldJobs
from agents.over_http.inbox import Inbox
from agents.over_http.job_claimer import JobClaimer
from agents.over_http.leases import Leases
from common.backoff import exponential
from common.loop import Health, keep_running
from common.messages import AgentStatus, StatusUpdate
from common.orders import Drain, Heard, Leave, Pause, Resume, Settle, TrustKeys
from common.rest.workers import WorkerOrder, WorkerOrders

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=1)
LOOK_SELDOM = timedelta(seconds=8)
LEAVING = frozenset({AgentStatus.DRAINING, AgentStatus.OFFLINE})


class Orders:
    """Has jobs claimed while the server knows this agent, and lets it take work."""

    def __init__(
        self,
        client: QueueClient,
        held: HeldJobs,
        leases: Leases,
        inbox: Inbox,
        claimer: JobClaimer,
        *,
        health: Health,
    ) -> None:
        self._client = client
        self._held = held
        self._leases = leases
        self._inbox = inbox
        self._claimer = claimer
        self._health = health
        self._failures = 0
        self._latest: StatusUpdate | None = None
        self._standing: Pause | Drain | None = None
        self._is_known = False
        # One at a time, so that a look never overtakes the last beat, and no order an older one.
        self._speaking = asyncio.Lock()

    async def beat(self, update: StatusUpdate) -> None:
        """Send a heartbeat and do what its answer says. Raises `ServerAway`."""
        self._latest = update
        self._open_or_close_claims()
        await self._say(update)

    async def look(self) -> None:
        """Ask for orders again and again while jobs are held, until cancelled."""
        await keep_running("orders", self._look_once, health=self._health)

    async def _look_once(self) -> None:
        await self._held.some.wait()
        pause = exponential(self._failures + 1, base=LOOK_EVERY, cap=LOOK_SELDOM)
        await asyncio.sleep(pause.total_seconds())
        latest = self._latest
        if latest is None or latest.status is AgentStatus.OFFLINE or not len(self._held):
            return
        running = [held.job.id for held in self._held if held.is_granted]
        try:
            await self._say(
                latest.model_copy(update={"current_tasks": running, "beat_id": None, "sent_at": None, "schemas": {}})
            )
            self._failures = 0
        except ServerAway as failure:
            self._failures += 1
            log.info("orders.not_heard", extra={"failures": self._failures, "reason": str(failure)})

    async def _say(self, update: StatusUpdate) -> None:
        """Say it in its turn.

        A cancelled caller waits no longer, but what was begun is said to its end: the server would hear it all the
        same, perhaps after what is said next, such as the goodbye.
        """
        saying = asyncio.ensure_future(self._say_in_turn(update))
        saying.add_done_callback(_forget)
        await asyncio.shield(saying)

    async def _say_in_turn(self, update: StatusUpdate) -> None:
        async with self._speaking:
            try:
                told = await self._client.beat(update)
            except Refused as refusal:  # a heartbeat is never too late, so this one cannot be understood there
                raise ServerAway(str(refusal)) from refusal
            self._is_known = True
            if update.beat_id is not None:
                await self._inbox.put(Heard(beat_id=update.beat_id), at=told.at)
            await self._follow(told, update)
            self._open_or_close_claims()

    async def _follow(self, told: Told, update: StatusUpdate) -> None:
        for job in told.orders.cancelled:
            await self._leases.cancelled(job.job_id, job.attempt)
        for unsettled in told.orders.settle:
            await self._inbox.put(Settle(task_id=unsettled.job_id, attempt=unsettled.attempt), at=told.at)
        if told.orders.keys:
            await self._inbox.put(TrustKeys(signatures=told.orders.keys), at=told.at)
        for order in told.orders.orders:
            match order:
                case WorkerOrder(action="leave", boot_id=UUID() as boot_id):
                    await self._inbox.put(Leave(boot_id=boot_id, reason=order.note))
        before, self._standing = self._standing, standing(told.orders, update)
        if self._standing == before:
            return
        if self._standing is None or isinstance(before, Drain):
            await self._inbox.put(Resume(), at=told.at)
        if self._standing is not None:
            await self._inbox.put(self._standing, at=told.at)

    def _open_or_close_claims(self) -> None:
        latest = self._latest
        if latest is None or latest.status in LEAVING or self._standing is not None or not self._is_known:
            self._claimer.close()
            return
        if latest.credit is not None:
            self._claimer.allow(latest.credit.limit)
        self._claimer.open()


def _forget(said: "asyncio.Future[None]") -> None:
    """Retrieve how it ended: perhaps the caller was cancelled."""
    if not said.cancelled() and (failure := said.exception()) is not None:
        log.debug("orders.not_said", extra={"reason": str(failure)})


def standing(orders: WorkerOrders, update: StatusUpdate) -> Pause | Drain | None:
    """Return what holds this agent back; leaving is more than waiting."""
    pause: Pause | None = None
    for order in orders.orders:
        match order:
            case WorkerOrder(action="drain"):
                return Drain(started_at=update.started_at, note=order.note)
            case WorkerOrder(action="pause", until=datetime() as until):
                pause = pause or Pause(until=until, note=order.note)
    return pause
