"""What the model knows: the ledger, what each agent holds, what orchestrators have in hand, and the network.

Everything is a tuple, so that a state can be hashed and compared. What carries `ghost` in its comment exists only for
the invariants: no rule looks at it. Each message names its `kind`, because tuples of different classes can be equal.
"""

from typing import NamedTuple, TypeAlias

from common.lifecycle import Status
from common.messages import ResultStatus

LEASE = 2
"""How many ticks a lease runs: one in which it may be renewed, and one in which work must be stopped."""


class Ticket(NamedTuple):
    task: int
    fence: int
    kind: str = "ticket"


class Claim(NamedTuple):
    agent: int
    task: int
    fence: int
    claim: int
    kind: str = "claim"


class Grant(NamedTuple):
    agent: int
    task: int
    attempt: int
    fence: int
    claim: int
    kind: str = "grant"


class Refusal(NamedTuple):
    agent: int
    task: int
    claim: int
    kind: str = "refusal"


class Renew(NamedTuple):
    agent: int
    task: int
    fence: int
    number: int
    kind: str = "renew"


class Kept(NamedTuple):
    agent: int
    task: int
    fence: int
    number: int
    kind: str = "kept"


class Lost(NamedTuple):
    agent: int
    task: int
    fence: int
    kind: str = "lost"


class Result(NamedTuple):
    agent: int
    task: int
    attempt: int
    fence: int
    status: ResultStatus
    started: bool
    kind: str = "result"


class Stored(NamedTuple):
    agent: int
    task: int
    fence: int
    kind: str = "stored"


class Cancel(NamedTuple):
    agent: int
    task: int
    fence: int
    kind: str = "cancel"


Message: TypeAlias = Ticket | Claim | Grant | Refusal | Renew | Kept | Lost | Result | Stored | Cancel


class Try(NamedTuple):
    """A row of `attempt`. `reported`: an agent said what it stopped. `accepted` (ghost): how many results counted."""

    agent: int
    fence: int
    claim: int
    outcome: str | None = None
    reported: bool = False
    accepted: int = 0


class Task(NamedTuple):
    """A row of `task`. `lease` is how many ticks the lease still runs. `begun` (ghost): processes that were started."""

    status: Status = Status.PENDING
    fence: int = 0
    unstarted: int = 0
    lease: int = 0
    tries: tuple[Try, ...] = ()
    begun: int = 0


class Asking(NamedTuple):
    """The slot waits for the answer to a claim that it sent `age` ticks ago."""

    task: int
    fence: int
    claim: int
    age: int = 0


class Running(NamedTuple):
    """The slot runs a process, and believes in its lease for `left` ticks. `renewed_ago` is None while no renewal is
    under way; `renewals` counts them.
    """

    task: int
    attempt: int
    fence: int
    left: int
    renewals: int = 0
    renewed_ago: int | None = None


class Agent(NamedTuple):
    """One agent with one slot. `seen` is lost in a crash, `spool` and `journal` are on disk; `orphans` (ghost): what
    runs on although its agent has crashed; `asked` (ghost) numbers the claims.
    """

    slot: Asking | Running | None = None
    seen: frozenset[int] = frozenset()
    spool: frozenset[Result] = frozenset()
    journal: frozenset[tuple[int, int]] = frozenset()
    orphans: frozenset[tuple[int, int]] = frozenset()
    asked: int = 0


class Hand(NamedTuple):
    """What an orchestrator has committed, or only judged, and not yet said to anybody."""

    answers: frozenset[Message] = frozenset()
    judged: tuple[object, ...] | None = None


class State(NamedTuple):
    """Everything. `written` (ghost): results that were ever put into a spool."""

    tasks: tuple[Task, ...]
    agents: tuple[Agent, ...]
    hands: tuple[Hand, ...]
    network: frozenset[Message] = frozenset()
    crashes: int = 0
    written: frozenset[Result] = frozenset()
