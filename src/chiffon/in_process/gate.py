"""Who says whether an execution may run: asked right before it starts, and the only way to an executor."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chiffon.in_process.model import Execution

REFUSED_CODE = 3001


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an execution may not run."""

    reason: str


Gate = Callable[[Execution], Awaitable[Refusal | None]]


async def open_gate(_execution: Execution) -> Refusal | None:
    """Let everything run."""
    return None
