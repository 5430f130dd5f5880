"""How much work agents take, as far as this orchestrator has heard: a memory, so that new work goes at once.

The ledger decides: the statement that leases asks it again. An agent that is not known here, or was granted work by
another orchestrator, costs no more than a look at the ledger.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

from orchestrator.leases.model import Line
from orchestrator.registry.model import Room

# Maximum number of agents that are remembered.
MOST = 20_000


@dataclass(slots=True)
class _Known:
    pool: str
    work_types: frozenset[str] | None
    room: int = 0


class Credits:
    """Belongs to one event loop. `can_send` says whether work that is leased now can be sent to its agent."""

    def __init__(self, can_send: Callable[[], bool] = lambda: True) -> None:
        self._can_send = can_send
        self._agents: dict[UUID, _Known] = {}
        # The agents of each pool that have room, in the order in which they got it.
        self._free: dict[str, dict[UUID, _Known]] = {}
        self._waiting: set[str] = set()

    @property
    def tasks_wait(self) -> bool:
        """Whether tasks waited for room at the last look: then new room is worth another."""
        return bool(self._waiting)

    @property
    def can_send(self) -> bool:
        """Whether work is leased at all: a lease that its agent does not hear of in time may cost an attempt."""
        return self._can_send()

    def offers(self, agent_id: UUID, pool: str, work_types: Collection[str]) -> None:
        """Note what an agent takes; empty `work_types` mean any."""
        known = self._agents.get(agent_id)
        if known is None:
            if len(self._agents) >= MOST:
                self._agents.clear()
                self._free.clear()
            known = self._agents[agent_id] = _Known(pool, None)
        known.work_types = frozenset(work_types) or None

    def learn(self, rooms: Iterable[Room]) -> None:
        """Note what room agents have by the ledger."""
        for one in rooms:
            known = self._agents.get(one.agent_id)
            if known is not None:
                known.room = one.room
                self._sort(one.agent_id, known)

    def take(self, pool: str, work_type: str) -> UUID | None:
        """Return an agent that takes this work and has room, and count the task; None when there is none.

        While tasks of the pool wait, new ones are behind them. Of the agents that have room the first gets it, and is
        the last then, so that they take turns.
        """
        if pool in self._waiting or not self.can_send:
            return None
        free = self._free.get(pool, {})
        for agent_id, known in free.items():
            if known.work_types is None or work_type in known.work_types:
                known.room -= 1
                del free[agent_id]
                self._sort(agent_id, known)
                return agent_id
        return None

    def waiting(self, lines: Iterable[Line]) -> None:
        """Note in which lines tasks wait for room. Those that no agent takes hold up nothing."""
        self._waiting = {line.pool for line in lines if self._is_taken(line)}

    def waits_in(self, pool: str) -> None:
        """Note that a task of this pool waits."""
        self._waiting.add(pool)

    def _is_taken(self, line: Line) -> bool:
        return any(
            known.pool == line.pool and (known.work_types is None or line.work_type in known.work_types)
            for known in self._agents.values()
        )

    def _sort(self, agent_id: UUID, known: _Known) -> None:
        free = self._free.setdefault(known.pool, {})
        if known.room > 0:
            free.setdefault(agent_id, known)
        else:
            free.pop(agent_id, None)
