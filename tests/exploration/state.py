"""What there is in the model: rows of the ledger, agents, what orchestrators have in hand, and the network.

Everything is a tuple, so that a state can be hashed and compared. What carries `ghost` in its comment exists only for
the invariants: no rule looks at it. Each message names its `kind`, because tuples of different classes can be equal.

Messages that ask for work have no numbers here. Of two messages of one session the later one has a higher limit, or the
same and was sent later, so `age` says as much as a number; and a grant carries the age of the message that asked for it
in place of its number, which is all that the agent makes of it.
"""

from typing import NamedTuple, TypeAlias

from common.lifecycle import Status
from common.messages import ResultStatus

LEASE = 2
"""How many ticks a lease runs: one in which it may be renewed, and one in which work must be stopped."""
SLOTS = 1


class Ask(NamedTuple):
    """A heartbeat, with credit: see `common.messages.Credit`. It was sent `age` ticks ago, `LEASE` or more. `runs` is
    the task that it names.
    """

    agent: int
    session: int
    limit: int = SLOTS
    received: int = 0
    heard: int = 0
    runs: int | None = None
    age: int = 0
    kind: str = "ask"


class Heard(NamedTuple):
    agent: int
    session: int
    granted: int
    kind: str = "heard"


class Grant(NamedTuple):
    """The lease of a task; `age` is that of the message that asked for it."""

    agent: int
    task: int
    attempt: int
    session: int
    age: int
    kind: str = "grant"


class Renew(NamedTuple):
    agent: int
    task: int
    attempt: int
    number: int
    kind: str = "renew"


class Kept(NamedTuple):
    agent: int
    task: int
    attempt: int
    number: int
    kind: str = "kept"


class Lost(NamedTuple):
    agent: int
    task: int
    attempt: int
    kind: str = "lost"


class Result(NamedTuple):
    agent: int
    task: int
    attempt: int
    status: ResultStatus
    started: bool
    kind: str = "result"


class Stored(NamedTuple):
    agent: int
    task: int
    attempt: int
    kind: str = "stored"


class Cancel(NamedTuple):
    agent: int
    task: int
    attempt: int
    kind: str = "cancel"


Message: TypeAlias = Ask | Heard | Grant | Renew | Kept | Lost | Result | Stored | Cancel


class Try(NamedTuple):
    """A row of `attempt`. `reported`: an agent said what it stopped. `accepted` (ghost): how many results counted."""

    agent: int
    session: int
    outcome: str | None = None
    reported: bool = False
    accepted: int = 0


class Task(NamedTuple):
    """A row of `task`. `lease` is how many ticks the lease still runs. `begun` (ghost): processes that were started."""

    status: Status = Status.PENDING
    unstarted: int = 0
    lease: int = 0
    tries: tuple[Try, ...] = ()
    begun: int = 0

    @property
    def attempt(self) -> int:
        """The number of its last attempt."""
        return len(self.tries)

    def has(self, attempt: int, agent: int) -> bool:
        """Say whether an attempt is an agent's."""
        return 1 <= attempt <= len(self.tries) and self.tries[attempt - 1].agent == agent


class Row(NamedTuple):
    """A row of `agent`: what its session asked for and was granted. `newest` is the newest message that came from it;
    None before the first.
    """

    newest: Ask | None = None
    limit: int = 0
    granted: int = 0
    lost: int = 0

    @property
    def room(self) -> int:
        return self.limit + self.lost - self.granted


class Running(NamedTuple):
    """The slot runs a process, and believes in its lease for `left` ticks. `renewed_ago` is None while no renewal is
    under way; `renewals` counts them.
    """

    task: int
    attempt: int
    left: int
    renewals: int = 0
    renewed_ago: int | None = None


class Agent(NamedTuple):
    """One agent with one slot. `spool` and `journal` are on disk, and all but these is lost in a crash.

    `session` numbers its processes. `seen` are the attempts that came, of which `ended` have ended; `heard` is what the
    orchestrator said last that it granted. `orphans` (ghost): what runs on although its agent has crashed.
    """

    slot: Running | None = None
    session: int = 0
    seen: frozenset[tuple[int, int]] = frozenset()
    received: int = 0
    ended: int = 0
    heard: int = 0
    spool: frozenset[Result] = frozenset()
    journal: frozenset[tuple[int, int]] = frozenset()
    orphans: frozenset[tuple[int, int]] = frozenset()


class Hand(NamedTuple):
    """What an orchestrator has committed, or only judged, and not yet said to anybody."""

    answers: frozenset[Message] = frozenset()
    judged: tuple[object, ...] | None = None


class State(NamedTuple):
    """Everything. `written` (ghost): results that were ever put into a spool."""

    tasks: tuple[Task, ...]
    rows: tuple[Row, ...]
    agents: tuple[Agent, ...]
    hands: tuple[Hand, ...]
    network: frozenset[Message] = frozenset()
    crashes: int = 0
    written: frozenset[Result] = frozenset()
