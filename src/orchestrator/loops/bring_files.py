"""Bring work its files, piece by piece: at once, or as soon as what is on its way is stored."""

import logging
from collections.abc import Sequence
from uuid import UUID

from common.broker.base import Broker
from common.clock import Clock
from common.messages import WantFile
from orchestrator.artifacts.service import ArtifactService
from orchestrator.loops.tell import tell

log = logging.getLogger(__name__)

# Output and results of other work wait while files are brought. Who gets no answer asks again.
BRING_SECONDS = 2.0
# An agent that still waits has asked again by then.
KEEP_SECONDS = 10.0
MOST_KEPT = 1000


class BringFiles:
    """Answers who wants files. Of a file that is on its way it keeps the question until the file is there, for a while.

    Look again when files were stored, and now and then: another orchestrator may have stored one.
    """

    def __init__(self, artifacts: ArtifactService, broker: Broker, clock: Clock) -> None:
        self._artifacts = artifacts
        self._broker = broker
        self._clock = clock
        self._kept: dict[UUID, tuple[WantFile, float]] = {}

    async def bring(self, wants: Sequence[WantFile]) -> None:
        """Send pieces of files to the agents that need them: one after another, so that few are held in memory."""
        until = self._clock.monotonic() + BRING_SECONDS
        for brought, want in enumerate(wants):
            if self._clock.monotonic() >= until:
                log.warning("files.not_brought", extra={"left": len(wants) - brought})
                return
            if not await self._answer(want):
                self._keep(want)

    async def run_once(self) -> int:
        """Answer what is kept and can be answered by now, and return how much that was."""
        answered = 0
        for want, until in list(self._kept.values()):
            if await self._answer(want):
                answered += 1
            elif self._clock.monotonic() < until:
                continue
            self._kept.pop(want.want_id, None)
        return answered

    async def _answer(self, want: WantFile) -> bool:
        piece = await self._artifacts.piece(want)
        if piece is not None:
            await tell(self._broker, [(want.agent_id, piece)])
        return piece is not None

    def _keep(self, want: WantFile) -> None:
        self._kept.pop(want.want_id, None)
        if len(self._kept) == MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[want.want_id] = want, self._clock.monotonic() + KEEP_SECONDS
