"""Keep the leases of what runs, and stop what cannot be kept before its lease ends.

A renewal is due after a third of the lease, and is repeated more often until it is answered. The answer counts from
when the renewal was sent. Work whose lease nears its end is stopped so early that it can be killed in time.
"""

import asyncio
import logging
from datetime import timedelta
from uuid import UUID, uuid4

from agents.attempts.owned import Attempt, Attempts
from agents.attempts.stopping import StopReason
from agents.link.replies import reply
from agents.processes.deadlines import Deadlines
from common.broker.base import Broker, BrokerUnavailable
from common.broker.topology import HEARTBEATS
from common.clock import Clock
from common.messages import Lease, Renew, Renewed
from common.protocol import ORCHESTRATOR, RenewEnvelope

log = logging.getLogger(__name__)

LONGEST_SLEEP = 60.0
# After which part of its lease a renewal that was not answered is repeated.
REPEATED_AFTER = 1 / 12


class LeaseRenewer:
    """Renews the leases of all attempts together."""

    def __init__(
        self,
        broker: Broker,
        agent_id: UUID,
        attempts: Attempts,
        clock: Clock,
        *,
        deadlines: Deadlines,
        kill_grace: timedelta,
    ) -> None:
        self._broker = broker
        self._agent_id = agent_id
        self._attempts = attempts
        self._clock = clock
        self._deadlines = deadlines
        self._kill_grace = kill_grace.total_seconds()
        self._sent: dict[UUID, float] = {}

    async def run(self) -> None:
        """Renew and stop what is due, until cancelled."""
        # Publishing may hang with the broker; the stopping must not, so it does not wait for it.
        async with asyncio.TaskGroup() as publishing:
            while True:
                now = self._clock.monotonic()
                self._stop_overdue(now)
                if any(attempt.renew_at <= now for attempt in self._attempts):
                    publishing.create_task(self._renew(now), name="renew")
                    for attempt in self._attempts:
                        attempt.renew_at = now + attempt.grant.lease_seconds * REPEATED_AFTER
                now = self._clock.monotonic()
                pause = self._pause(now)
                # What is due before anything else can be is the renewal of one that is added.
                self._attempts.looks_at = now + pause
                await self._attempts.sooner.wait(timedelta(seconds=pause))

    def answered(self, renewed: Renewed) -> None:
        """Take in the answer to a renewal."""
        sent = self._sent.pop(renewed.renewal_id, None)
        for lease in renewed.kept if sent is not None else ():
            attempt = self._attempts.find(lease.task_id, lease.attempt)
            if attempt is not None and sent is not None:
                attempt.lease_until = max(attempt.lease_until, sent + renewed.lease_seconds)
                attempt.renew_at = max(attempt.renew_at, sent + renewed.lease_seconds / 3)
                self._deadlines.renewed(attempt)
                if attempt.renewed is not None:
                    attempt.renewed.set()
        for lease in renewed.lost:  # for good, whichever renewal it answers
            attempt = self._attempts.find(lease.task_id, lease.attempt)
            if attempt is not None:
                self._stop(attempt, grace=min(self._kill_grace, attempt.lease_until - self._clock.monotonic()))

    def _stop_overdue(self, now: float) -> None:
        for attempt in self._attempts:
            if now >= self._stop_at(attempt):
                left = attempt.lease_until - self._reserve(attempt) - now
                self._stop(attempt, grace=min(self._kill_grace, left))

    def _stop_at(self, attempt: Attempt) -> float:
        """When a lease that was not renewed has so little left that killing must begin."""
        needed = self._kill_grace + self._reserve(attempt)
        return attempt.lease_until - min(needed, attempt.grant.lease_seconds / 4)

    @staticmethod
    def _reserve(attempt: Attempt) -> float:
        """What stays of the lease after the kill, for a host that is slow."""
        return attempt.grant.lease_seconds / 10

    def _stop(self, attempt: Attempt, *, grace: float) -> None:
        if attempt.stop.order(StopReason.LEASE_LOST, grace=grace):
            log.warning(
                "lease.lost", extra={"task_id": attempt.task_id, "trace_id": attempt.grant.trace_id, "grace": grace}
            )

    def _pause(self, now: float) -> float:
        due = [attempt.renew_at for attempt in self._attempts]
        for attempt in self._attempts:
            stop_at = self._stop_at(attempt)
            # An attempt that is being stopped needs no second order once this time has passed.
            if stop_at > now or attempt.stop.reason is None:
                due.append(stop_at)
        return max(0.0, min(due, default=now + LONGEST_SLEEP) - now)

    async def _renew(self, now: float) -> None:
        leases = [Lease(task_id=attempt.task_id, attempt=attempt.number) for attempt in self._attempts]
        if not leases:
            return
        longest = max(attempt.grant.lease_seconds for attempt in self._attempts)
        renewal = Renew(renewal_id=uuid4(), agent_id=self._agent_id, leases=leases)
        self._sent = {asked: at for asked, at in self._sent.items() if at > now - longest} | {renewal.renewal_id: now}
        envelope = RenewEnvelope(from_agent=str(self._agent_id), to_agent=ORCHESTRATOR, payload=renewal)
        message = reply(
            self._agent_id, HEARTBEATS, envelope, is_repeated=True, expires_after=timedelta(seconds=longest)
        )
        try:
            async with asyncio.timeout(longest / 6):
                await self._broker.publish(message)
        except (BrokerUnavailable, TimeoutError) as failure:
            log.warning("lease.renewal_failed", extra={"leases": len(leases), "reason": str(failure)})
        except Exception:  # nothing may end the loop that stops work in time
            log.exception("lease.renewal_failed", extra={"leases": len(leases)})
