"""The attempts that this agent began: none is begun twice, also not after a restart.

An attempt is written into the journal before anything of it runs, so earlier lives of the agent are known as well.
"""

from collections import OrderedDict
from collections.abc import Iterable

from agents.spool_lines import Key

REMEMBERED = 200_000


class Begun:
    """`known`: those that the journal of earlier lives names, the oldest first."""

    def __init__(self, known: Iterable[Key] = ()) -> None:
        self._begun: OrderedDict[Key, None] = OrderedDict.fromkeys(known)
        self._earlier = frozenset(self._begun)

    def is_of_earlier_life(self, key: Key) -> bool:
        """Return whether an earlier life of this agent began it."""
        return key in self._earlier

    def begin(self, key: Key) -> bool:
        """Note that an attempt begins; False when it began before."""
        if key in self._begun:
            return False
        self._begun[key] = None
        if len(self._begun) > REMEMBERED:
            self._begun.popitem(last=False)
        return True
