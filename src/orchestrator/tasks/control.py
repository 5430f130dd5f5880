"""What people do to tasks that exist: cancel whole traces, run a task once more."""

import logging
from uuid import UUID, uuid4

from common.errors import Conflict
from common.ids import new_request_id
from common.loop import Wake
from orchestrator.identities.model import Caller
from orchestrator.policy.service import PolicyService
from orchestrator.tasks.model import Identity, Task
from orchestrator.tasks.rerun import make_rerun
from orchestrator.tasks.service import CancelledTrace, TaskService

log = logging.getLogger(__name__)


class TaskHasNotEnded(Conflict):
    def __init__(self, task: Task) -> None:
        super().__init__(f"The task has not ended: it is {task.status}. Only a task that has ended is run again.")


class TaskControl:
    """Cancels and repeats."""

    def __init__(self, tasks: TaskService, policy: PolicyService, giver: Wake) -> None:
        self._tasks = tasks
        self._policy = policy
        self._giver = giver

    async def cancel_trace(self, trace_id: UUID, *, by: str) -> CancelledTrace:
        """Cancel every task of a trace that has not ended; raises `TraceNotFound`."""
        answer = await self._tasks.cancel_trace(trace_id, by=by)
        self._giver.ring()
        log.info("trace.cancelled", extra={"trace_id": trace_id, "tasks": len(answer.cancelled)})
        return answer

    async def rerun(
        self,
        task_id: UUID,
        *,
        as_task: UUID | None = None,
        request_id: UUID | None = None,
        trace_id: UUID | None = None,
        by: Caller,
    ) -> Identity:
        """Dispatch the content of a task that has ended as a new task; with the same ids it is the same new task.

        Raises `TaskNotFound`, `TaskHasNotEnded`, `RefusedByPolicy`, and `IdempotencyConflict` when an id is taken by
        something else.
        """
        task = await self._tasks.get(task_id)
        if not task.status.is_final:
            raise TaskHasNotEnded(task)
        again = make_rerun(
            task,
            task_id=as_task or uuid4(),
            request_id=request_id or new_request_id(),
            trace_id=trace_id,
            rule=self._policy.rule,
            by=by,
        )
        [answer] = await self._tasks.dispatch([again], by=by.name)
        if isinstance(answer, BaseException):
            raise answer
        self._giver.ring()
        log.info("task.rerun", extra={"task_id": answer.task_id, "trace_id": answer.trace_id, "rerun_of": task_id})
        return answer
