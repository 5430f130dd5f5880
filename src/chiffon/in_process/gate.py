"""Whether an execution may run: the gate is asked right before it starts, and is the only way to an executor."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.executors.base import ExecutionContext, Executor, Host, Outcome
from agents.executors.permitted import Permitted
from agents.executors.registry import executors
from agents.processes.keepers import Keepers
from chiffon.in_process.executors import run_program
from chiffon.in_process.model import BadExecution, Execution, WorkFailed, digest
from common.errors import ErrorCode
from common.messages import WorkRequest
from common.policy.model import Effect


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an execution may not run."""

    reason: str


Gate = Callable[[Execution], Awaitable[Refusal | None]]
Run = Callable[[Mapping[str, Any]], Awaitable[Any]]

BUILT_IN_READS = frozenset({"echo"})


class NotPermitted(Exception):
    """The gate refused; nothing ran. The message says why."""


class ContentChanged(Exception):
    """The content is not that which was submitted; nothing ran."""


class WriteGate:
    """Holds what runs each command: the work types of every agent, and functions of the caller.

    `ask` says what may run; without it reads do, and of writes those that a person approved.
    """

    def __init__(self, ask: Gate | None, keepers: Keepers) -> None:
        self._keepers = keepers
        self._asks_people = ask is None
        self._ask = ask or self._ask_approval
        self._built_in: Mapping[str, Executor[Any]] = executors(Host())
        self._own: dict[str, Run] = {}
        self._effects = {
            command: Effect.READ if command in BUILT_IN_READS else Effect.WRITE for command in self._built_in
        }

    @property
    def commands(self) -> list[str]:
        return sorted(self._effects)

    def register(self, command: str, run: Run, effect: str) -> None:
        """Have a function run a command; raises `BadExecution` for an unknown effect."""
        if effect not in list(Effect):
            raise BadExecution(f"effect: must be {' or '.join(map(repr, map(str, Effect)))}, not {effect!r}")
        self._own[command] = run
        self._effects[command] = Effect(effect)

    def needs_approval(self, command: str) -> bool:
        """Return whether an execution of the command waits until a person approves it."""
        return self._asks_people and self._effects[command] is Effect.WRITE

    async def run(self, execution: Execution) -> Any:
        """Run an execution and return its result.

        Raises `NotPermitted` and `ContentChanged` when nothing ran, and whatever its function raises.
        """
        if execution.command not in self._effects:
            message = f"The command {execution.command!r} is not registered in this process."
            raise WorkFailed(message, code=ErrorCode.UNSUPPORTED_WORK_TYPE)
        if (refusal := await self._ask(execution)) is not None:
            raise NotPermitted(refusal.reason)
        if digest(execution.command, execution.payload) != execution.digest:
            raise ContentChanged("the content is not that which was submitted: its digest differs")
        if (own := self._own.get(execution.command)) is not None:
            return await own(execution.payload)
        executor = self._built_in[execution.command]

        async def start(work: WorkRequest, context: ExecutionContext) -> Outcome:
            return await executor.execute(Permitted(work), context)

        return await run_program(execution, start, self._keepers)

    async def _ask_approval(self, execution: Execution) -> Refusal | None:
        """Refuse what was stored under another gate, or before its command was registered as a write."""
        if self.needs_approval(execution.command) and execution.approved_by is None:
            return Refusal(f"{execution.command!r} is a write, and no person has approved it")
        return None
