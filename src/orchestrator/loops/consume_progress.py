"""Take output and progress of tasks that run, and the results that follow them."""

from collections.abc import Sequence
from datetime import timedelta

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker
from common.messages import WorkResult, WorkStatus
from common.protocol import WorkResults
from orchestrator.leases.service import LeaseService
from orchestrator.loops.consume_results import accept
from orchestrator.output.service import OutputService


class ConsumeProgress:
    """Stores output and progress. The result of a task that wrote while it ran comes through the same queue, behind
    its output, so that it is stored behind it too.
    """

    queue = topology.PROGRESS
    # A message can hold some hundred KiB of output.
    prefetch = 100
    gather = timedelta(0)
    accepts: tuple[type[BaseModel], ...] = (WorkStatus, WorkResult, WorkResults)

    def __init__(self, output: OutputService, leases: LeaseService, broker: Broker) -> None:
        self._output = output
        self._leases = leases
        self._broker = broker

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        statuses = [payload for payload in payloads if isinstance(payload, WorkStatus)]
        if statuses:
            await self._output.store(statuses)
        await accept(payloads, self._leases, self._broker)
