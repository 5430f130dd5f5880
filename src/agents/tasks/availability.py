"""Whether this agent takes new work: it may be stopping, drained, paused for a while, or have a clock that is off."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from common.loop import Wake

log = logging.getLogger(__name__)


class Availability:
    """Belongs to one event loop. `changed` rings whenever those that leave or wait should look again."""

    def __init__(self) -> None:
        self._is_stopping = False
        self._is_drained = False
        self._resumption: asyncio.TimerHandle | None = None
        self._is_clock_off = False
        self._refusal: str | None = None
        self.changed = Wake()

    @property
    def is_open(self) -> bool:
        return not (self.is_leaving or self._is_clock_off or self._resumption is not None)

    @property
    def is_leaving(self) -> bool:
        """Whether the agent will end when its work has."""
        return self._is_stopping or self._is_drained or self._refusal is not None

    @property
    def refusal(self) -> str | None:
        """Why the orchestrator does not want this process; None while it does."""
        return self._refusal

    @property
    def is_drained(self) -> bool:
        return self._is_drained

    def stop(self) -> None:
        """Take nothing new; there is no way back."""
        self._is_stopping = True
        self.changed.ring()

    def drain(self, note: str = "") -> None:
        """Take nothing new, and leave when what runs has ended."""
        log.info("agent.drain_ordered", extra={"note": note})
        self._is_drained = True
        self.changed.ring()

    def pause(self, until: datetime, *, ordered_at: datetime, note: str = "") -> None:
        """Take nothing new until then. A later order replaces an earlier one."""
        seconds = time_left(until, ordered_at=ordered_at, now=datetime.now(UTC)).total_seconds()
        self._forget_pause()
        if seconds > 0:
            log.info("agent.paused", extra={"until": until.isoformat(), "note": note})
            self._resumption = asyncio.get_running_loop().call_later(seconds, self._end_pause)
        self.changed.ring()

    def resume(self) -> None:
        """Take work again, whether paused or drained; an agent that stops goes on stopping."""
        log.info("agent.resumed")
        self._is_drained = False
        self._forget_pause()
        self.changed.ring()

    def clock_is(self, *, off: bool) -> None:
        """Take nothing new while this host's clock is off."""
        if off is not self._is_clock_off:
            self._is_clock_off = off
            self.changed.ring()

    def refuse(self, reason: str) -> None:
        """Take nothing new, and leave: another process has this agent's identity."""
        log.error("agent.refused", extra={"reason": reason})
        self._refusal = reason
        self.changed.ring()

    def _end_pause(self) -> None:
        log.info("agent.pause_over")
        self._forget_pause()
        self.changed.ring()

    def _forget_pause(self) -> None:
        if self._resumption is not None:
            self._resumption.cancel()
            self._resumption = None


def time_left(until: datetime, *, ordered_at: datetime, now: datetime) -> timedelta:
    """Return for how long a pause still lasts.

    The end and the time of the order are by the orchestrator's clock, `now` by this host's. The shorter of the two
    readings: a host whose clock is behind does not pause longer than was meant, nor does an order that came late.
    """
    aware = until if until.tzinfo is not None else until.replace(tzinfo=UTC)
    since = ordered_at if ordered_at.tzinfo is not None else ordered_at.replace(tzinfo=UTC)
    return min(aware - now, aware - since)
