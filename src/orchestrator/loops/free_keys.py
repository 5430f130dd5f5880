"""Free the keys of cancelled tasks whose agents never said that they are stopped."""

from common.loop import Wake
from orchestrator.keys.service import KeyService


class FreeKeys:
    """Lets the next of a key go when the lease of a cancelled task is over."""

    def __init__(self, keys: KeyService, giver: Wake, *, batch: int = 200) -> None:
        self._keys = keys
        self._giver = giver
        self._batch = batch

    async def run_once(self) -> int:
        freed = await self._keys.free_overdue(limit=self._batch)
        if freed:
            self._giver.ring()
        return freed
