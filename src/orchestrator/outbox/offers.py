"""Which work types agents take, and so which tickets may be published to everybody of a pool: a pure decision.

A pool's queue is served by all its agents, so only work that each of them takes is published there. What some of them
take is placed on one of those. What none takes is set aside in the ledger and holds up nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce


@dataclass(frozen=True, slots=True)
class Offer:
    """The work types that are taken; `types` None: any."""

    types: frozenset[str] | None = None

    @classmethod
    def of(cls, named: Collection[str]) -> "Offer":
        """Return what an agent takes; one that names no type takes any."""
        return cls(frozenset(named) if named else None)

    def takes(self, work_type: str) -> bool:
        return self.types is None or work_type in self.types

    def __and__(self, other: "Offer") -> "Offer":
        if self.types is None or other.types is None:
            return self if other.types is None else other
        return Offer(self.types & other.types)

    def __or__(self, other: "Offer") -> "Offer":
        return ANY if self.types is None or other.types is None else Offer(self.types | other.types)


ANY, NOTHING = Offer(), Offer(frozenset())


@dataclass(frozen=True, slots=True)
class PoolOffer:
    """What all agents at work in a pool take, and what at least one of them does."""

    by_all: Offer
    by_one: Offer

    @classmethod
    def of(cls, offers: Collection[Offer]) -> "PoolOffer":
        return cls(reduce(Offer.__and__, offers, ANY), reduce(Offer.__or__, offers, NOTHING))


@dataclass(frozen=True, slots=True)
class Offers:
    """What agents at work take, by pool. A pool without such an agent takes any ticket."""

    pools: Mapping[str, PoolOffer] = field(default_factory=dict)

    @classmethod
    def of(cls, agents: Iterable[tuple[str, Offer]]) -> "Offers":
        """Compare agents, each as its pool and what it takes."""
        given: dict[str, list[Offer]] = {}
        for agent_type, offer in agents:
            given.setdefault(agent_type, []).append(offer)
        return cls({agent_type: PoolOffer.of(offers) for agent_type, offers in given.items()})

    def is_for_all(self, agent_type: str, work_type: str) -> bool:
        """Return whether every agent at work in the pool takes this type of work."""
        pool = self.pools.get(agent_type)
        return pool is None or pool.by_all.takes(work_type)

    def choosy(self) -> list[str]:
        """Return the pools in which not every type of work may be published."""
        return [name for name, pool in self.pools.items() if pool.by_all.types is not None]

    def for_all(self) -> list[tuple[str, str]]:
        """Return (agent_type, work_type) of what may be published in the choosy pools."""
        return [(name, one) for name, pool in self.pools.items() for one in sorted(pool.by_all.types or ())]

    def for_one(self) -> list[tuple[str, str]]:
        """Return (agent_type, work_type) of what at least one agent names."""
        return [(name, one) for name, pool in self.pools.items() for one in sorted(pool.by_one.types or ())]

    def with_any(self) -> list[str]:
        """Return the choosy pools that have an agent which takes any work."""
        return [name for name in self.choosy() if self.pools[name].by_one.types is None]


ANYTHING = Offers()
