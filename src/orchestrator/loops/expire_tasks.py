"""Cancel tasks that wait in vain: longer than they may, or for a fan-out that was stopped."""

from common.loop import Wake
from orchestrator.tasks.service import TaskService


class ExpireTasks:
    """Ends the waiting of tasks that will never begin; the next of their keys may go."""

    def __init__(self, tasks: TaskService, giver: Wake, *, batch: int = 200) -> None:
        self._tasks = tasks
        self._giver = giver
        self._batch = batch

    async def run_once(self) -> int:
        ended = await self._tasks.expire(limit=self._batch) + await self._tasks.stop_fan_outs(limit=self._batch)
        if ended:
            self._giver.ring()
        return ended
