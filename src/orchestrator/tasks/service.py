"""The use cases of tasks, one transaction each."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from common.errors import ErrorCode, NotFound
from common.lifecycle import Change, InvalidTransition, Status, next_status
from common.messages import CancelTask
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.model import NewOrder, NewTicket
from orchestrator.tasks import queries
from orchestrator.tasks.dispatch import IdempotencyConflict, recognise
from orchestrator.tasks.model import Identity, NewTask, Task, TaskFilter


class TaskNotFound(NotFound):
    code = ErrorCode.TASK_NOT_FOUND

    def __init__(self, task_id: UUID) -> None:
        super().__init__(f"No task has the id {task_id}.")


class TaskHasEnded(InvalidTransition, ValueError):
    """The task is final, so it cannot be cancelled."""

    code = ErrorCode.INVALID_STATE

    def __str__(self) -> str:
        return f"The task has ended: it is {self.status}, so it cannot be cancelled any more."


class TaskService:
    """Dispatches, finds and cancels tasks. `ageing` is how long a wait is worth one level of priority."""

    def __init__(self, pool: Pool, *, ageing: timedelta) -> None:
        self._pool = pool
        self._ageing = ageing

    async def dispatch(self, tasks: Sequence[NewTask], *, by: str) -> Sequence[Identity | BaseException]:
        """Store new tasks and recognise old ones; for each, in order, its identity or an `IdempotencyConflict`."""
        async with transaction(self._pool) as db:
            fresh = await queries.insert(db, tasks)
            # A task can be in one call twice; the first of them is the new one.
            new = list({task.task_id: task for task in reversed(tasks) if task.task_id in fresh}.values())[::-1]
            answers = await self._recognise_rest(db, tasks, new)
            await outbox.add_tickets(db, [_ticket(task) for task in new], ageing=self._ageing)
            await events.append(db, *(_dispatched(task, by) for task in new))
        return answers

    async def _recognise_rest(
        self, db: Connection, tasks: Sequence[NewTask], new: Sequence[NewTask]
    ) -> list[Identity | BaseException]:
        inserted = {id(task) for task in new}
        rest = [task for task in tasks if id(task) not in inserted]
        known = await queries.identities(db, rest) if rest else []
        answers: list[Identity | BaseException] = []
        for task in tasks:
            if id(task) in inserted:
                answers.append(Identity(task.task_id, task.request_id, task.trace_id, task.digest()))
                continue
            try:
                answers.append(recognise(task, known))
            except IdempotencyConflict as conflict:
                answers.append(conflict)
        return answers

    async def get(self, task_id: UUID) -> Task:
        """Return a task, or raise `TaskNotFound`."""
        async with self._pool.acquire() as db:
            task = await queries.find(db, task_id)
        if task is None:
            raise TaskNotFound(task_id)
        return task

    async def newest(self, wanted: TaskFilter, *, limit: int) -> list[Task]:
        """Return matching tasks, newest first."""
        async with self._pool.acquire() as db:
            return await queries.newest(db, wanted, limit=limit)

    async def cancel(self, task_id: UUID, *, by: str) -> None:
        """Cancel a task that has not ended; the agent of a running one is told to stop it.

        Raises `TaskNotFound`, and `TaskHasEnded` for a final task.
        """
        async with transaction(self._pool) as db:
            task = (await queries.lock(db, [task_id])).get(task_id)
            if task is None:
                raise TaskNotFound(task_id)
            try:
                next_status(task.status, Change.CANCEL)
            except InvalidTransition:
                raise TaskHasEnded(task.status, Change.CANCEL) from None
            await queries.cancel(db, task_id)
            await outbox.remove_tickets(db, [task_id])
            await outbox.add_orders(db, _stop_orders(task))
            await events.append(db, _cancelled(task, by))


def _ticket(task: NewTask) -> NewTicket:
    return NewTicket(
        task.task_id, task.trace_id, task.request_id, task.work_type, task.agent_type, task.priority, fence=0
    )


def _dispatched(task: NewTask, by: str) -> NewEvent:
    return NewEvent(
        Kind.TASK_DISPATCHED,
        actor=by,
        task_id=task.task_id,
        trace_id=task.trace_id,
        request_id=task.request_id,
        data={"work_type": task.work_type, "agent_type": task.agent_type, "priority": task.priority},
    )


def _cancelled(task: Task, by: str) -> NewEvent:
    return NewEvent(
        Kind.TASK_CANCELLED,
        actor=by,
        task_id=task.task_id,
        trace_id=task.trace_id,
        request_id=task.request_id,
        agent_id=task.agent_id,
        attempt=task.attempt or None,
        data={"was": task.status, "exit_code": None, "duration_ms": None, "error_code": None, "error_message": None},
    )


def _stop_orders(task: Task) -> list[NewOrder]:
    if task.status is not Status.RUNNING or task.agent_id is None:
        return []
    order = CancelTask(task_id=task.task_id, fence=task.fence)
    return [NewOrder(task.agent_id, task.trace_id, task.request_id, order)]
