"""Let approvals lapse that nobody answered in time, or whose work did not begin in time."""

from common.loop import Wake
from orchestrator.approvals.service import ApprovalService
from orchestrator.tasks.service import TaskService


class ExpireApprovals:
    """Ends what waited too long for people, and what was approved too long ago; their tasks are cancelled.

    So are retries that wait when their approval does not hold any more.
    """

    def __init__(self, approvals: ApprovalService, tasks: TaskService, giver: Wake, *, batch: int = 200) -> None:
        self._approvals = approvals
        self._tasks = tasks
        self._giver = giver
        self._batch = batch

    async def run_once(self) -> int:
        withdrawn = await self._tasks.withdraw_lapsed(limit=self._batch)
        if withdrawn:
            self._giver.ring()
        return await self._approvals.expire(limit=self._batch) + withdrawn
