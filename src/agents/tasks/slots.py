"""The slots of an agent, and the account of the work that it asked for.

The orchestrator leases tasks to a session of this agent, which is one process of it, while that was granted fewer than
its limit: one for each slot, and one more for each task that has ended. Only sums are announced, so a message that is
lost or repeated changes nothing.
"""

import asyncio
from collections import OrderedDict
from uuid import UUID

from agents.attempts.owned import Attempt
from agents.tasks.availability import Availability
from common.clock import Clock
from common.loop import Wake
from common.messages import Credit, GrantedTask

# How many messages' times of sending are kept. A lease that was asked for in an older message is over, or nearly.
REMEMBERED_MESSAGES = 20_000


class Slots:
    """Lets at most `count` tasks run at a time, and says in a `Credit` how many more this session takes."""

    def __init__(self, count: int, session: UUID, availability: Availability, clock: Clock) -> None:
        self._count = count
        self._session = session
        self._availability = availability
        self._clock = clock
        self._free = asyncio.Semaphore(count)
        self._limit = 0
        self._received = 0
        self._ended = 0
        self._heard = 0
        self._number = 0
        self._is_open = False
        self._sent_at: OrderedDict[int, float] = OrderedDict()
        # Rings when a task was received, and when the orchestrator said how many it granted.
        self.news = Wake()

    @property
    def is_more_granted(self) -> bool:
        """Whether the orchestrator said that it granted more than was received."""
        return self._heard > self._received

    @property
    def is_one_free(self) -> bool:
        """Whether `take` returns at once."""
        return not self._free.locked()

    async def take(self) -> None:
        """Wait for a free slot, and take it; the caller gives it back with `release`."""
        await self._free.acquire()

    def release(self) -> None:
        self._free.release()

    def open(self) -> None:
        """Ask for work from now on: there is what takes it in."""
        self._is_open = True

    def credit(self) -> Credit:
        """Return how much work to ask for in a message that is about to be sent: none before `open`.

        While the agent takes no work the limit stays as it was: what was granted already goes back, and no more comes.
        """
        if self._is_open and self._availability.is_open:
            self._limit = self._count + self._ended
        self._number += 1
        self._sent_at[self._number] = self._clock.monotonic()
        if len(self._sent_at) > REMEMBERED_MESSAGES:
            self._sent_at.popitem(last=False)
        return Credit(
            session=self._session,
            number=self._number,
            limit=self._limit,
            received=self._received,
            heard=self._heard,
        )

    def receive(self, granted: int | None = None) -> None:
        """Count a task that was granted to this session, as one of so many."""
        self._received += 1
        self.heard(granted or 0)

    def end(self, attempt: Attempt) -> bool:
        """Count the end of an attempt that was received; False when it was counted before."""
        if attempt.has_ended:
            return False
        attempt.has_ended = True
        self._ended += 1
        return True

    def heard(self, granted: int) -> None:
        """Note how many tasks the orchestrator says that it granted to this session."""
        self._heard = max(self._heard, granted)
        self.news.ring()

    def claim_of(self, grant: GrantedTask) -> UUID:
        """Return what the grant must name as its claim: this session."""
        return self._session

    def asked_at(self, grant: GrantedTask, number: int | None) -> float | None:
        """Return when the message was sent that asked for the grant, on the monotonic clock; None when not known."""
        return None if number is None else self._sent_at.get(number)
