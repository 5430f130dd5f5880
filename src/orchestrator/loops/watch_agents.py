"""Note agents that have fallen silent."""

from orchestrator.registry.service import RegistryService


class WatchAgents:
    """Marks silent agents as offline."""

    def __init__(self, registry: RegistryService, *, batch: int = 500) -> None:
        self._registry = registry
        self._batch = batch

    async def run_once(self) -> int:
        return await self._registry.mark_silent(limit=self._batch)
