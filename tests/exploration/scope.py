"""How large the model is, and which safeguards it has."""

from dataclasses import dataclass, field
from enum import StrEnum

from tests.exploration.rules import Rules


class Safeguard(StrEnum):
    """What the model's agents and orchestrators do to keep the promises. Those of the rules are in the rules."""

    SELF_FENCING = "an agent stops its work before the lease ends"
    LEASE_FROM_ASKING = "a lease counts from when the message was sent that asked for it"
    EXPIRED_GRANT = "a grant that comes after its lease is not begun"
    GRANT_DEDUPE = "a grant that comes twice is begun once"
    SESSION = "a grant of an earlier session is not begun"
    JOURNAL = "what was begun is known after a crash"
    GUARDIAN = "work dies with its agent"
    SPOOL = "the spool survives a crash"
    SPOOL_UNTIL_STORED = "a result stays in the spool until the ledger has it"
    ROW_LOCK = "a row is locked from the reading to the commit"
    ONLY_WHAT_WAITS = "only a task that waits is leased"
    CREDIT = "a session is leased no more than it asked for"
    NEW_SESSION = "a new session was granted nothing yet"
    REGRANT = "a lost grant is sent again"
    LOST_ROOM = "a lost grant that is over takes no room"
    LOST_ONCE = "a grant is lost once, however often its agent says that it misses it"


@dataclass(frozen=True)
class Scope:
    """The bounds: how often each task may start, how often it is leased, how often agents renew and anything crashes.

    `hands`: what an orchestrator has committed and not yet told is a state of its own; otherwise it is told at once,
    which is the same to everybody else, because the network may hold it back for ever. `forgets`: a message that can
    change nothing any more under the production rules is taken out of the network, which only saves time.
    """

    most: tuple[int, ...] = (1, 2)
    agents: int = 2
    orchestrators: int = 2
    leases: int = 2
    renewals: int = 1
    crashes: int = 1
    cancels: bool = True
    hands: bool = True
    forgets: bool = True
    without: frozenset[Safeguard] = frozenset()
    rules: Rules = field(default_factory=Rules, compare=False)

    def has(self, safeguard: Safeguard) -> bool:
        return safeguard not in self.without
