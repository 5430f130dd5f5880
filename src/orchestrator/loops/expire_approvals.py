"""Let approvals lapse that nobody answered in time, or whose work did not begin in time."""

from orchestrator.approvals.service import ApprovalService


class ExpireApprovals:
    """Ends what waited too long for people, and what was approved too long ago; their tasks are cancelled."""

    def __init__(self, approvals: ApprovalService, *, batch: int = 200) -> None:
        self._approvals = approvals
        self._batch = batch

    async def run_once(self) -> int:
        return await self._approvals.expire(limit=self._batch)
