"""Take output and progress of tasks that run."""

from collections.abc import Sequence

from pydantic import BaseModel

from common.broker import topology
from common.messages import WorkStatus
from orchestrator.output.service import OutputService


class ConsumeProgress:
    """Stores output and progress."""

    queue = topology.PROGRESS
    accepts: tuple[type[BaseModel], ...] = (WorkStatus,)

    def __init__(self, output: OutputService) -> None:
        self._output = output

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        await self._output.store([payload for payload in payloads if isinstance(payload, WorkStatus)])
