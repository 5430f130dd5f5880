"""Take what tasks say while they run and leave behind, and the results that follow; bring the files that they need."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker
from common.messages import WantFile, WorkResult, WorkStatus
from common.orders import ArtifactsStored, StepsStored
from common.protocol import WorkResults
from orchestrator.artifacts.service import ArtifactService
from orchestrator.leases.service import LeaseService
from orchestrator.loops.bring_files import BringFiles
from orchestrator.loops.consume_results import accept
from orchestrator.loops.tell import tell
from orchestrator.output.service import OutputService
from orchestrator.steps.service import StepService


class ConsumeProgress:
    """Stores output, progress, inner steps and files. The result of a task that said something while it ran comes
    through the same queue, behind all that, so that it is stored behind it too.
    """

    queue = topology.PROGRESS
    # A message can hold some hundred KiB of output.
    prefetch = 100
    gather = timedelta(0)
    accepts: tuple[type[BaseModel], ...] = (WorkStatus, WantFile, WorkResult, WorkResults)

    def __init__(
        self,
        output: OutputService,
        leases: LeaseService,
        broker: Broker,
        *,
        steps: StepService,
        artifacts: ArtifactService,
        files: BringFiles,
    ) -> None:
        self._output = output
        self._leases = leases
        self._broker = broker
        self._steps = steps
        self._artifacts = artifacts
        self._files = files

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        statuses = [payload for payload in payloads if isinstance(payload, WorkStatus)]
        if statuses:
            await self._output.store(statuses)
            await self._keep(statuses)
        await accept(payloads, self._leases, self._broker)
        await self._files.bring([payload for payload in payloads if isinstance(payload, WantFile)])

    async def _keep(self, statuses: Sequence[WorkStatus]) -> None:
        """Store inner steps and pieces of files, and tell the agents what they may forget."""
        answers: list[tuple[UUID, StepsStored | ArtifactsStored]] = [
            *await self._steps.store(statuses),
            *await self._artifacts.store(statuses),
        ]
        if answers:
            await tell(self._broker, answers)
