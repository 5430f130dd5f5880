"""Take tasks back from agents that no longer renew.

A lease that ran out while it could not be renewed says nothing about its agent. So nothing is reaped while the broker
is away, while replies of agents wait to be read, or just after either of these or a pause of this process: agents get
one lease's time to bring what they have. Only then is silence a sign that an agent is lost.
"""

import logging
from datetime import timedelta

from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable
from common.clock import Clock
from common.loop import Wake
from orchestrator.leases.service import LeaseService

log = logging.getLogger(__name__)

# The loop runs every second; a gap of this many was a pause of the process and not a slow run.
PAUSE = 5.0

REPLIES = (topology.RESULTS, topology.PROGRESS, topology.HEARTBEATS)


class ReapLeases:
    """Returns lost tasks to the queue while attempts remain, and fails them otherwise."""

    def __init__(
        self,
        leases: LeaseService,
        broker: Broker,
        giver: Wake,
        clock: Clock,
        *,
        grace: timedelta,
        batch: int = 100,
    ) -> None:
        self._leases = leases
        self._broker = broker
        self._giver = giver
        self._clock = clock
        self._grace = grace.total_seconds()
        self._batch = batch
        self._last_run: float | None = None
        self._waiting_since: float | None = None
        self._was_away = False
        # Before this, on the monotonic clock, agents may not have had their chance to be heard.
        self._not_before = clock.monotonic() + self._grace

    async def run_once(self) -> int:
        now = self._clock.monotonic()
        if self._last_run is not None and now - self._last_run > max(self._grace / 2, PAUSE):
            log.warning("reaper.was_paused", extra={"seconds": round(now - self._last_run, 1)})
            self._not_before = now + self._grace
        self._last_run = now
        if not await self._agents_can_be_heard(now) or now < self._not_before:
            return 0
        lost = await self._leases.reap(limit=self._batch)
        if lost:
            self._giver.ring()
        return lost

    async def _agents_can_be_heard(self, now: float) -> bool:
        try:
            waiting = sum([await self._broker.depth(queue) for queue in REPLIES])
        except BrokerUnavailable:
            self._was_away = True
            return False
        if self._was_away:
            # From now, and not from when it was asked: a broker that is away does not answer for some seconds.
            self._was_away = False
            self._not_before = self._clock.monotonic() + self._grace
        if waiting == 0:
            self._waiting_since = None
            return True
        self._waiting_since = now if self._waiting_since is None else self._waiting_since
        # Under a load that never ends the queues are never empty; then time decides.
        return now - self._waiting_since > self._grace
