"""The attempts that this agent began: none is begun twice, also not after a restart.

An attempt is written into the journal before anything of it runs, so earlier processes of the agent are known as well,
as far as the host has run since. An attempt that a host forgot when it lost power was granted to another process: this
one never begins it, and never reports that it was not begun.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable
from uuid import UUID

from agents.disk.spool_lines import Key

REMEMBERED = 200_000


class Begun:
    """`known`: those that the journal names, the oldest first; `sessions`: earlier processes of which it names all."""

    def __init__(self, known: Iterable[Key] = (), *, sessions: Collection[UUID] = ()) -> None:
        self._begun: OrderedDict[Key, None] = OrderedDict.fromkeys(known)
        self._earlier = frozenset(self._begun)
        self._sessions = frozenset(sessions)

    def is_certain_of(self, session: UUID) -> bool:
        """Return whether all that an earlier process began is known."""
        return session in self._sessions

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
