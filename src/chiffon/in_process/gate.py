"""Who says whether an execution may run: asked right before it starts, and the only way to an executor."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.executors.base import ExecutionContext, Executor, Host, Outcome
from agents.executors.registry import executors
from agents.permitted import Permitted
from agents.processes.keepers import Keepers
from chiffon.in_process.executors import run_program
from chiffon.in_process.model import Execution
from common.messages import WorkRequest


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an execution may not run."""

    reason: str


Gate = Callable[[Execution], Awaitable[Refusal | None]]
Run = Callable[[Mapping[str, Any]], Awaitable[Any]]


async def open_gate(_execution: Execution) -> Refusal | None:
    """Let everything run."""
    return None


class NotPermitted(Exception):
    """The gate refused; nothing ran. The message says why."""


class WriteGate:
    """Knows what runs a command, and nobody else does: the work types of every agent, and functions of the caller."""

    def __init__(self, ask: Gate, keepers: Keepers) -> None:
        self._keepers = keepers
        self._ask = ask
        self._built_in: Mapping[str, Executor[Any]] = executors(Host())
        self._own: dict[str, Run] = {}

    @property
    def commands(self) -> list[str]:
        return sorted({*self._built_in, *self._own})

    def register(self, command: str, run: Run) -> None:
        self._own[command] = run

    async def run(self, execution: Execution) -> Any:
        """Run an execution and return its result. Raises `NotPermitted`, and whatever its function raises."""
        if (refusal := await self._ask(execution)) is not None:
            raise NotPermitted(refusal.reason)
        if (own := self._own.get(execution.command)) is not None:
            return await own(execution.payload)
        executor = self._built_in[execution.command]

        async def start(work: WorkRequest, context: ExecutionContext) -> Outcome:
            return await executor.execute(Permitted(work), context)

        return await run_program(execution, start, self._keepers)
