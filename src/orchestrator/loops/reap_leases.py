"""Take tasks back from agents that no longer renew."""

from common.loop import Wake
from orchestrator.leases.service import LeaseService


class ReapLeases:
    """Returns lost tasks to the queue while attempts remain, and fails them otherwise."""

    def __init__(self, leases: LeaseService, relay: Wake, *, batch: int = 100) -> None:
        self._leases = leases
        self._relay = relay
        self._batch = batch

    async def run_once(self) -> int:
        lost = await self._leases.reap(limit=self._batch)
        if lost:
            self._relay.ring()
        return lost
