"""The use cases of tasks, one transaction each."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from common.errors import ErrorCode, NotFound
from common.lifecycle import Change, InvalidTransition, Status, next_status
from common.messages import CancelTask
from orchestrator.approvals import asking
from orchestrator.approvals.rules import ApprovalMismatch
from orchestrator.database.pages import Listing
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.keys import admission
from orchestrator.keys.model import Keys, Limit, has_keys
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.model import NewOrder
from orchestrator.placement import queries as placement
from orchestrator.settings import STANDARD
from orchestrator.tasks import events as told
from orchestrator.tasks import queries
from orchestrator.tasks.consent import in_words_of, question_of, uses_of
from orchestrator.tasks.dispatch import IdempotencyConflict, is_known, recognise, written_differently
from orchestrator.tasks.model import Identity, NewTask, Task, TaskFilter

log = logging.getLogger(__name__)

EXPIRY = "orchestrator"
# Below every id.
FIRST = UUID(int=0)
CANCELLED_AT_ONCE = 500


class TaskNotFound(NotFound):
    code = ErrorCode.TASK_NOT_FOUND

    def __init__(self, task_id: UUID) -> None:
        super().__init__(f"No task has the id {task_id}.")


class TraceNotFound(NotFound):
    code = ErrorCode.TASK_NOT_FOUND

    def __init__(self, trace_id: UUID) -> None:
        super().__init__(f"No task belongs to the trace {trace_id}.")


class TaskHasEnded(InvalidTransition, ValueError):
    """The task is completed or failed, so it cannot be cancelled."""

    code = ErrorCode.INVALID_STATE

    def __str__(self) -> str:
        return f"The task has ended: it is {self.status}, so it cannot be cancelled any more."


@dataclass(frozen=True, slots=True)
class CancelledTrace:
    """What became of a trace: the tasks that were cancelled now, and how many had ended before."""

    trace_id: UUID
    cancelled: list[UUID]
    already_ended: int


class TaskService:
    """Dispatches, finds and cancels tasks. `ageing` is how long a wait is worth one level of priority."""

    def __init__(self, pool: Pool, *, ageing: timedelta = STANDARD.priority_ageing) -> None:
        self._pool = pool
        self._ageing = ageing

    async def dispatch(self, tasks: Sequence[NewTask], *, by: str) -> list[Identity | BaseException]:
        """Store new tasks and recognise old ones; for each, in order, its identity or an `IdempotencyConflict`."""
        async with transaction(self._pool) as db:
            return await self.store(db, tasks, by=by)

    async def store(self, db: Connection, tasks: Sequence[NewTask], *, by: str) -> list[Identity | BaseException]:
        """Do what `dispatch` does inside a transaction of the caller, which has locked no task and no agent."""
        await admission.hold(db, Keys.of(tasks))
        approvals = await asking.named(db, {task.approval_id for task in tasks if task.approval_id is not None})
        if approvals:
            tasks = [in_words_of(task, approvals.get(task.approval_id)) if task.approval_id else task for task in tasks]
        uses = uses_of(tasks)
        refused = await asking.check_uses(db, uses)
        allowed = [task for task in tasks if id(task) not in refused]
        aims = {aim.key: aim for task in allowed if (aim := task.aimed_at) is not None}
        await placement.keep(db, aims.values())
        fresh = await queries.insert(db, allowed, ageing=self._ageing)
        # A task can be in one call twice; the first of them under the ids that were stored is the new one.
        stored = {
            (task.task_id, task.request_id): task
            for task in reversed(allowed)
            if (task.task_id, task.request_id) in fresh
        }
        new = list(stored.values())[::-1]
        answers = await self._recognise_rest(db, tasks, new, refused)
        await asking.spend(db, [uses[id(task)] for task in new if id(task) in uses])
        asked = await asking.ask(db, [question_of(task) for task in new if task.status is Status.AWAITING_APPROVAL])
        await self._admit(db, [task for task in new if has_keys(task)])
        await events.append(db, *(told.dispatched(task, by) for task in new), *asked)
        return answers

    async def _admit(self, db: Connection, new: Sequence[NewTask]) -> None:
        """Let tasks with keys go, as far as their keys allow; the limit of the newest dispatch holds from now on."""
        if not new:
            return
        limits = {
            task.concurrency_key: Limit(task.concurrency_limit, task.stop_after)
            for task in new
            if task.concurrency_key is not None and task.concurrency_limit is not None
        }
        await admission.limit(db, limits)
        await admission.admit(db, Keys.of(new))

    async def _recognise_rest(
        self,
        db: Connection,
        tasks: Sequence[NewTask],
        new: Sequence[NewTask],
        refused: Mapping[int, ApprovalMismatch],
    ) -> list[Identity | BaseException]:
        inserted = {id(task) for task in new}
        rest = [task for task in tasks if id(task) not in inserted]
        known = await queries.identities(db, rest) if rest else []
        differing = written_differently(rest, known)
        stored = await queries.get(db, differing) if differing else {}
        answers: list[Identity | BaseException] = []
        for task in tasks:
            if id(task) in inserted:
                answers.append(identity_of(task))
                continue
            if id(task) in refused and not is_known(task, known):
                answers.append(refused[id(task)])
                continue
            try:
                answers.append(recognise(task, known, stored))
            except IdempotencyConflict as conflict:
                answers.append(conflict)
        return answers

    async def get(self, task_id: UUID) -> Task:
        """Return a task, or raise `TaskNotFound`."""
        async with self._pool.acquire() as db:
            task = await queries.show(db, task_id)
        if task is None:
            raise TaskNotFound(task_id)
        return task

    async def newest(self, wanted: TaskFilter, *, limit: int) -> Listing[Task]:
        """Return a page of matching tasks, newest first."""
        async with self._pool.acquire() as db:
            return await queries.newest(db, wanted, limit=limit)

    async def cancel(self, task_id: UUID, *, by: str) -> None:
        """Cancel a task that has not ended; the agent of a running one is told to stop it.

        Cancelling a cancelled task changes nothing. Raises `TaskNotFound`, and `TaskHasEnded` for a task that has
        ended otherwise.
        """
        async with transaction(self._pool) as db:
            # First seen, then held, then locked: a task that is stored just now is unknown, or its keys are known.
            if await queries.find(db, task_id) is None:
                raise TaskNotFound(task_id)
            await admission.hold_for(db, [task_id])
            task = (await queries.lock(db, [task_id]))[task_id]
            if task.status is Status.CANCELLED:
                return
            try:
                next_status(task.status, Change.CANCEL)
            except InvalidTransition:
                raise TaskHasEnded(task.status, Change.CANCEL) from None
            await self._cancel(db, [task], by=by)

    async def cancel_trace(self, trace_id: UUID, *, by: str) -> CancelledTrace:
        """Cancel every task of a trace that has not ended, some hundred at a time; raises `TraceNotFound`."""
        cancelled: list[UUID] = []
        async with self._pool.acquire() as db:
            known, _ = await queries.count_of_trace(db, trace_id)
        if known == 0:
            raise TraceNotFound(trace_id)
        last = FIRST
        while True:
            async with transaction(self._pool) as db:
                found = await queries.open_of_trace(db, trace_id, after=last, limit=CANCELLED_AT_ONCE)
                if not found:
                    break
                await admission.hold_for(db, found)
                tasks = await queries.lock(db, found)
                still_open = [task for task in tasks.values() if not task.status.is_final]
                await self._cancel(db, still_open, by=by)
            cancelled += [task.task_id for task in still_open]
            last = found[-1]
        async with self._pool.acquire() as db:
            _, ended = await queries.count_of_trace(db, trace_id)
        return CancelledTrace(trace_id, cancelled, already_ended=ended - len(cancelled))

    async def _cancel(self, db: Connection, tasks: Sequence[Task], *, by: str) -> None:
        """Cancel locked tasks that have not ended, as the end of a transaction that holds their keys."""
        ids = [task.task_id for task in tasks]
        running = [task.task_id for task in tasks if task.status is Status.RUNNING]
        await admission.is_stopping(db, running)
        await queries.cancel(db, ids)
        await outbox.add_orders(db, [order for task in tasks for order in _stop_orders(task)])
        await admission.admit(db, Keys.of(tasks))
        ended = await asking.end(db, [task.task_id for task in tasks if task.approval_id is not None], by=by)
        await events.append(db, *(told.cancelled(task, by) for task in tasks), *ended)

    async def expire(self, *, limit: int) -> int:
        """Cancel tasks that have waited longer than they may, the next of their keys go; return how many expired."""
        async with transaction(self._pool) as db:
            found = await queries.expired(db, limit=limit)
            if not found:
                return 0
            await admission.hold_for(db, found)
            tasks = await queries.lock_expired(db, found)
            reasons = {task.task_id: _waited_too_long(task) for task in tasks}
            await self._give_up(db, tasks, reasons, code=ErrorCode.TIMEOUT)
        for task in tasks:
            log.info("task.expired", extra={"task_id": task.task_id, "trace_id": task.trace_id})
        return len(tasks)

    async def stop_fan_outs(self, *, limit: int) -> int:
        """Cancel what still waits of fan-outs of which too many tasks have failed; return how many were cancelled."""
        async with transaction(self._pool) as db:
            found = await queries.of_stopped_fan_outs(db, limit=limit)
            if not found:
                return 0
            await admission.hold_for(db, list(found))
            locked = await queries.lock(db, sorted(found))
            waiting = [task for task in locked.values() if task.status is Status.PENDING and not task.admitted]
            reasons = {task.task_id: f"stopped: {found[task.task_id]} tasks of its fan-out failed" for task in waiting}
            await self._give_up(db, waiting, reasons, code=None)
        for task in waiting:
            log.info("task.stopped", extra={"task_id": task.task_id, "trace_id": task.trace_id})
        return len(waiting)

    async def withdraw_lapsed(self, *, limit: int) -> int:
        """Cancel tasks that wait for another attempt, which their approvals do not cover any more; return how many."""
        async with self._pool.acquire() as db:
            found = await queries.lapsed(db, limit=limit)
        if found:
            await self.withdraw(found)
        return len(found)

    async def withdraw(self, task_ids: Sequence[UUID]) -> None:
        """Cancel tasks that wait and must not run: altered in the ledger, or approved too long ago; others go on."""
        async with transaction(self._pool) as db:
            await admission.hold_for(db, task_ids)
            locked = await queries.lock(db, sorted(task_ids))
            waiting = [task for task in locked.values() if task.status is Status.PENDING]
            consent = await asking.Consent.open(db, waiting, now=await queries.now(db))
            reasons = {task.task_id: f"withheld: {reason}" for task in waiting if (reason := consent.withheld(task))}
            withheld = [task for task in waiting if task.task_id in reasons]
            await self._give_up(db, withheld, reasons, code=ErrorCode.APPROVAL_MISMATCH)
        for task in withheld:
            log.warning("task.withheld", extra={"task_id": task.task_id, "reason": reasons[task.task_id]})

    async def _give_up(
        self, db: Connection, tasks: Sequence[Task], reasons: Mapping[UUID, str], *, code: ErrorCode | None
    ) -> None:
        """Cancel locked tasks that wait, each with its reason, as the end of a transaction that holds their keys."""
        await queries.expire(db, reasons, error_code=code)
        await admission.admit(db, Keys.of(tasks))
        ended = await asking.end(db, [task.task_id for task in tasks if task.approval_id is not None], by=EXPIRY)
        cancelled = (told.cancelled(task, EXPIRY, code=code, reason=reasons[task.task_id]) for task in tasks)
        await events.append(db, *cancelled, *ended)


def identity_of(task: NewTask) -> Identity:
    return Identity(task.task_id, task.request_id, task.trace_id, task.digest, task.status, task.effective_approval_id)


def _waited_too_long(task: Task) -> str:
    assert task.expires_at is not None
    seconds = (task.expires_at - task.created_at).total_seconds()
    return f"expired: waited longer than {seconds:g} s"


def _stop_orders(task: Task) -> list[NewOrder]:
    if task.status is not Status.RUNNING or task.agent_id is None:
        return []
    order = CancelTask(task_id=task.task_id, attempt=task.attempt)
    return [NewOrder(task.agent_id, order, task.trace_id, task.request_id)]
