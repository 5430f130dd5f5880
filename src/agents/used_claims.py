"""The claims whose grants were run: none is run twice, also not after a restart.

Every claim has an id that this agent drew at random and that is written into the journal before anything of it runs.
A grant that was recorded and sent again answers a claim that was used, or one that this process never made.
"""

from collections import OrderedDict
from collections.abc import Iterable
from uuid import UUID

REMEMBERED = 200_000


class UsedClaims:
    """`known`: those that the journal of earlier lives names, the oldest first."""

    def __init__(self, known: Iterable[UUID] = ()) -> None:
        self._used: OrderedDict[UUID, None] = OrderedDict.fromkeys(known)
        self._earlier = frozenset(self._used)

    def is_of_earlier_life(self, claim_id: UUID) -> bool:
        """Return whether an earlier life of this agent began what it was granted for this claim."""
        return claim_id in self._earlier

    def use(self, claim_id: UUID) -> bool:
        """Note that a claim is used; False when it was before."""
        if claim_id in self._used:
            return False
        self._used[claim_id] = None
        if len(self._used) > REMEMBERED:
            self._used.popitem(last=False)
        return True
