"""Everything that the checks look at of one repair: what was killed, and how host and ledger stand before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.runs.plan import Kill, Repair


@dataclass(frozen=True, slots=True)
class Container:
    """A container as docker shows it."""

    id: str
    name: str
    image: str
    status: str
    started_at: str


@dataclass(frozen=True, slots=True)
class Host:
    """How the service stands, seen past Chiffon.

    `files` are what each file of the workspace holds, and its permissions. `changed` is what git says of it. `image` is
    the id that compose's name for the image has. `answer` is what the service gives by HTTP; None when it does not.
    `strangers` are containers that are not of the project. `left` is what a repair should have removed.
    """

    files: Mapping[str, tuple[str, int]]
    changed: str
    image: str
    service: Sequence[Container]
    others: Sequence[Container]
    answer: str | None
    strangers: Sequence[str] = ()
    left: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A kill that was made. `hit` is the step, or the two steps, that the state file shows around it."""

    kill: Kill
    hit: str
    at: float


@dataclass
class Carried:
    """One repair that was carried out. `wrote` is what its patch writes into the file that the service shows.

    `status` and `steps` are what the ledger says. `state` is the state file of the service, `unsent` how many ends of
    repairs the agent still has to report. `processes` are those that still run for the repair.
    """

    number: int
    repair: Repair
    wrote: str
    run_id: str
    before: Host
    after: Host
    status: str
    steps: Mapping[str, str]
    tasks: Mapping[str, str]
    state: Mapping[str, Any]
    seconds: float
    kills: list[Made] = field(default_factory=list)
    is_held: bool = False
    unsent: int = 0
    processes: Sequence[str] = ()
    errors: Sequence[str] = ()

    @property
    def is_own_state(self) -> bool:
        """Whether the state file is of this repair; one that never began on the host has none."""
        return self.state.get("run_id") == self.run_id
