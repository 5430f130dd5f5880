"""Cancel tasks that have waited longer than they may."""

from common.loop import Wake
from orchestrator.tasks.service import TaskService


class ExpireTasks:
    """Ends the waiting of tasks whose limit has passed; the next of their keys get tickets."""

    def __init__(self, tasks: TaskService, relay: Wake, *, batch: int = 200) -> None:
        self._tasks = tasks
        self._relay = relay
        self._batch = batch

    async def run_once(self) -> int:
        expired = await self._tasks.expire(limit=self._batch)
        if expired:
            self._relay.ring()
        return expired
