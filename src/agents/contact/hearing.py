"""Notice that nothing comes back any more, although what is said is taken.

A connection can be alive, its AMQP heartbeats answered, and its consumers dead all the same. The orchestrator answers
every heartbeat with `Heard`; when several in a row were published and none was answered, this agent is deaf, or the
orchestrator is away. Both look the same from here, so the remedy must be harmless: new connections and consumers.
"""

import asyncio
import logging
import math
from datetime import timedelta

from common.loop import Wake

log = logging.getLogger(__name__)

MISSED_BEATS = 3
LONGEST_PATIENCE = timedelta(minutes=10)


class Hearing:
    """Judges by the beats that were sent and those that were heard. Times are on the monotonic clock.

    `news` rings for each answer.
    """

    def __init__(self, *, every: timedelta, give_up_after: timedelta | None) -> None:
        self._patience = MISSED_BEATS * every.total_seconds() + max(every.total_seconds(), 1.0)
        self._give_up_after = None if give_up_after is None else give_up_after.total_seconds()
        self._unanswered = 0
        self._waiting_since = 0.0
        self._first_heard_at: float | None = None
        self._heard_at: float | None = None
        self._deaf_since: float | None = None
        self._reconnects = 0
        self._reconnected_at = -math.inf
        self.news = Wake()
        self._answered = asyncio.Event()

    async def answered(self) -> None:
        """Return when a beat of this process was answered, so that the orchestrator knows the agent and its pool."""
        await self._answered.wait()

    @property
    def is_deaf(self) -> bool:
        return self._deaf_since is not None

    @property
    def has_heard(self) -> bool:
        """Whether any beat of this process was answered."""
        return self._answered.is_set()

    def has_heard_for(self, span: timedelta) -> bool:
        """Whether so much time lies between the first answer and the last."""
        if self._first_heard_at is None or self._heard_at is None:
            return False
        return self._heard_at - self._first_heard_at >= span.total_seconds()

    def sent(self, *, at: float) -> None:
        """A beat was stored by the broker, so an answer is due."""
        if self._unanswered == 0:
            self._waiting_since = at
        self._unanswered += 1

    def heard(self, *, at: float, is_own: bool = True) -> None:
        """An answer came, to whichever beat: so the way there and back works.

        `is_own`: it is to a beat of this process, and not of an earlier or another one with this identity.
        """
        if self._deaf_since is not None:
            log.warning("agent.hears_again", extra={"deaf_seconds": round(at - self._deaf_since, 1)})
        self._heard_at = at
        if self._first_heard_at is None:
            self._first_heard_at = at
        if is_own:
            self._answered.set()
        self.news.ring()
        self._deaf_since = None
        self._reconnects = 0
        self._unanswered = 0

    def must_reconnect(self, *, now: float) -> bool:
        """Whether new connections are due: first when too many beats were missed, then ever more rarely."""
        # One who never heard anything may have an orchestrator that does not answer, or none yet.
        if self._heard_at is None or self._unanswered < MISSED_BEATS:
            return False
        since = max(self._waiting_since, self._reconnected_at)
        patience = min(self._patience * 2**self._reconnects, max(self._patience, LONGEST_PATIENCE.total_seconds()))
        if now - since < patience:
            return False
        if self._deaf_since is None:
            self._deaf_since = self._heard_at
        log.error(
            "agent.deaf",
            extra={
                "unanswered": self._unanswered,
                "heard_seconds_ago": round(now - self._heard_at, 1),
                "reconnects": self._reconnects,
            },
        )
        self._reconnects += 1
        self._reconnected_at = now
        # The new connections are judged by what is sent over them.
        self._unanswered = 0
        return True

    def must_give_up(self, *, now: float) -> bool:
        """Whether it has lasted so long that a new process should try."""
        return (
            self._give_up_after is not None
            and self._deaf_since is not None
            and now - self._deaf_since >= self._give_up_after
        )
