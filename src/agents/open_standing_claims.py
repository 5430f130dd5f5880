"""The standing claims of an agent that are open, how many more it makes, and about which it asks: no input or output.

It has twice as many as tasks began here in the last half second, and one. Times are seconds on the monotonic clock.
"""

import math
from collections import deque
from itertools import takewhile
from typing import NamedTuple
from uuid import UUID, uuid4

from common.messages import STANDING_SECONDS

# How long a slot is kept for a claim: the grant needs a moment, too.
KEPT_FOR = STANDING_SECONDS + 0.1
# Longer than a claim counts and its grant is on its way. Those that are nearly as old are asked about together.
ASKED_AFTER = 2.0
ASKED_WITH = 1.0
ASKED_AGAIN_AFTER = 2.0
# No lease that was given for a claim lives on without being renewed.
FORGOTTEN_AFTER = 3600.0
# An agent makes standing claims for a part of its slots, and for none when half of them are busy: tickets need slots,
# too. One with fewer slots than this makes none: the next ticket would wait for what is kept.
PART = 4


class Answered(NamedTuple):
    """A claim that was answered: when it was made, and whether a slot was kept for it."""

    made_at: float
    has_slot: bool


class OpenStandingClaims:
    """The standing claims that were made and not answered yet."""

    def __init__(self) -> None:
        # When each was made, the oldest first; of those that were asked about, when they are asked about again.
        self._made: dict[UUID, float] = {}
        self._asked: dict[UUID, float] = {}
        # Those for which a slot is kept, and until when.
        self._kept: dict[UUID, float] = {}
        # How many tasks had begun, and when that was seen.
        self._begun: deque[tuple[float, int]] = deque()

    @property
    def is_asking(self) -> bool:
        """Whether it was asked about some that are not answered yet."""
        return bool(self._asked)

    def make(self, now: float, *, most: int, slots: int, free: int, begun: int) -> list[UUID]:
        """Return new claims, so that there are as many as are wanted, at most `most`.

        `slots` is how many the agent has and `free` how many of them; `begun` counts all tasks that it ever began.
        """
        self._begun.append((now, begun))
        while now - self._begun[0][0] > STANDING_SECONDS:
            self._begun.popleft()
        if free <= slots // 2:
            return []
        lately = begun - self._begun[0][1]
        wanted = min(2 * lately + 1, most, slots // PART, free)
        standing = sum(1 for _ in takewhile(lambda at: now - at < STANDING_SECONDS, reversed(self._made.values())))
        made = [uuid4() for _ in range(wanted - standing)]
        self._made |= dict.fromkeys(made, now)
        self._kept |= dict.fromkeys(made, now + KEPT_FOR)
        return made

    def lapse(self, now: float) -> int:
        """Return for how many claims no slot is kept any more, since this was asked last."""
        over = [claim_id for claim_id, until in self._kept.items() if until <= now]
        for claim_id in over:
            del self._kept[claim_id]
        return len(over)

    def ask(self, now: float) -> list[UUID]:
        """Return the claims to ask about now; they are asked about again when there is no answer."""
        for claim_id in [one for one in self._asked if now - self._made[one] >= FORGOTTEN_AFTER]:
            self.answered(claim_id)
        if self._next_question() > now:
            return []
        due = [
            claim_id
            for claim_id, made_at in self._made.items()
            if self._asked.get(claim_id, made_at + ASKED_WITH) <= now
        ]
        self._asked |= dict.fromkeys(due, now + ASKED_AGAIN_AFTER)
        return due

    def ask_all(self) -> None:
        """Have all claims asked about at once."""
        self._asked = dict.fromkeys(self._made, -math.inf)

    def next_change(self) -> float:
        """Return when there is something to ask next, or a slot is kept no longer; infinity when nothing is open."""
        return min(self._next_question(), next(iter(self._kept.values()), math.inf))

    def answered(self, claim_id: UUID) -> Answered | None:
        """Forget a claim that was answered, and return what it was; None when it is none of these."""
        self._asked.pop(claim_id, None)
        made_at = self._made.pop(claim_id, None)
        has_slot = self._kept.pop(claim_id, None) is not None
        return None if made_at is None else Answered(made_at, has_slot)

    def _next_question(self) -> float:
        oldest = next((made_at for claim_id, made_at in self._made.items() if claim_id not in self._asked), math.inf)
        return min(oldest + ASKED_AFTER, min(self._asked.values(), default=math.inf))
