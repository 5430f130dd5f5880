"""Compare this host's clock with the orchestrator's, by the answers to heartbeats.

Signatures and leases name times. With a clock that is off, a host would refuse good work, so it takes none until the
clock is right again.
"""

import logging
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from uuid import UUID

from agents.tasks.availability import Availability
from common.clock import Clock

log = logging.getLogger(__name__)

REMEMBERED_BEATS = 100


class ClockWatch:
    """Keeps the agent from new work while its clock is off. Clocks may differ by `skew`."""

    def __init__(self, availability: Availability, clock: Clock, *, skew: timedelta) -> None:
        self._availability = availability
        self._clock = clock
        self.skew = skew
        self._sent: OrderedDict[UUID, float] = OrderedDict()
        self._is_off = False

    def sent(self, beat_id: UUID) -> None:
        """Note when a heartbeat was sent."""
        self._sent[beat_id] = self._clock.monotonic()
        if len(self._sent) > REMEMBERED_BEATS:
            self._sent.popitem(last=False)

    def is_awaited(self, beat_id: UUID) -> bool:
        """Return whether a heartbeat of this process is not answered yet."""
        return beat_id in self._sent

    def heard(self, beat_id: UUID, *, at: datetime) -> None:
        """Compare clocks by the answer to a heartbeat, given `at` this time of the orchestrator's.

        An answer that took longer than clocks may differ tells nothing, nor does one to another process.
        """
        sent = self._sent.pop(beat_id, None)
        if sent is None:
            return
        took = timedelta(seconds=self._clock.monotonic() - sent)
        if took > self.skew:
            return
        # The orchestrator wrote the answer at some moment of that time: half of it is the best guess.
        theirs = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        ahead = self._clock.now() - took / 2 - theirs
        is_off = abs(ahead) > self.skew
        if is_off is not self._is_off:
            self._is_off = is_off
            seconds = {"seconds_ahead": round(ahead.total_seconds(), 1)}
            if is_off:
                log.error("agent.clock_off", extra={**seconds, "allowed": self.skew.total_seconds()})
            else:
                log.warning("agent.clock_right", extra=seconds)
        self._availability.clock_is(off=is_off)
