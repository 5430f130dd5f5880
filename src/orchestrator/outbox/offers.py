"""Which work types a ticket may name to be published to everybody of a pool, or placed on one agent: a pure decision.

A pool's queue is served by all its agents, so only work that each of them offers is published there. What some of them
offer is placed on one of those. What none offers is set aside in the ledger and holds up nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PoolOffer:
    """The work types that all agents at work in a pool offer, and those that only some of them do."""

    by_all: frozenset[str]
    by_some: frozenset[str]


@dataclass(frozen=True, slots=True)
class Offers:
    """The work types that working agents offer, by pool. A pool without such an agent takes any ticket."""

    pools: Mapping[str, PoolOffer] = field(default_factory=dict)

    @classmethod
    def of(cls, agents: Iterable[tuple[str, Collection[str]]]) -> "Offers":
        """Compare agents, each as its pool and its work types; an agent that names none takes any."""
        named: dict[str, list[frozenset[str]]] = {}
        for agent_type, work_types in agents:
            if work_types:
                named.setdefault(agent_type, []).append(frozenset(work_types))
        return cls({agent_type: _pool(sets) for agent_type, sets in named.items()})

    def is_for_all(self, agent_type: str, work_type: str) -> bool:
        """Return whether every agent at work in the pool offers this type of work."""
        offer = self.pools.get(agent_type)
        return offer is None or work_type in offer.by_all

    def for_all(self) -> list[tuple[str, str]]:
        """Return (agent_type, work_type) of what may be published, for the pools that have agents at work."""
        return [(name, work_type) for name, offer in self.pools.items() for work_type in sorted(offer.by_all)]

    def for_some(self) -> list[tuple[str, str]]:
        """Return (agent_type, work_type) of what has to be placed on an agent that offers it."""
        return [(name, work_type) for name, offer in self.pools.items() for work_type in sorted(offer.by_some)]


def _pool(sets: list[frozenset[str]]) -> PoolOffer:
    by_all = frozenset.intersection(*sets)
    return PoolOffer(by_all, frozenset.union(*sets) - by_all)


ANYTHING = Offers()
