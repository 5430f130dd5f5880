"""The use cases of runs: start, look, advance, cancel, try again, abandon, and answer what a run waits for."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from common.errors import ChiffonError, Conflict, ErrorCode, InvalidField, NotFound
from common.lifecycle import Status
from common.plans.check import check
from common.plans.model import Plan
from common.plans.status import RunStatus
from common.protocol import ORCHESTRATOR
from common.rest.runs import StepKind
from orchestrator.approvals.service import ApprovalService
from orchestrator.database.pages import Listing
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.identities.model import Caller
from orchestrator.runs import events as told
from orchestrator.runs import queries, rules
from orchestrator.runs.dispatching import check_dispatch
from orchestrator.runs.model import KnownRun, Link, NewLink, NewRun, Pending, Run, RunFilter, RunView, Summary
from orchestrator.runs.open_runs import OpenRuns
from orchestrator.runs.states import Inner, is_owned, told_of, unsettled
from orchestrator.runs.turn import Turn, history_of, passage, steps_of, turn_of, view_of
from orchestrator.service import OrchestratorService
from orchestrator.steps import queries as inner_steps
from orchestrator.tasks.dispatch import IdempotencyConflict
from orchestrator.tasks.model import Identity, NewTask
from orchestrator.tasks.service import TaskHasEnded, TaskNotFound

log = logging.getLogger(__name__)

# Says of what is known about a run, and of its plan, why it is not tried again as it was planned; None when it may be.
Outdated = Callable[[Mapping[str, Any], Plan], str | None]

# How often a run is looked at again at once before others have their turn.
MOST_LOOKS = 20
# So many rows whose place others took are shown, the newest.
MOST_EARLIER = 500


class RunNotFound(NotFound):
    code = ErrorCode.RUN_NOT_FOUND

    def __init__(self, run_id: UUID) -> None:
        super().__init__(f"No run has the id {run_id}.")


class RunNotPossible(Conflict):
    """The run does not stand so that this can be done to it."""

    code = ErrorCode.RUN_NOT_POSSIBLE


class RunIdTaken(Conflict):
    """The id is taken by another run."""

    code = ErrorCode.IDEMPOTENCY_CONFLICT

    def __init__(self, key: str, value: UUID, known_as: UUID) -> None:
        super().__init__(
            f"{key} {value} was already used for other content (run {known_as}). "
            "Send the same content to get the same answer, or new ids for a new run."
        )


@dataclass(frozen=True, slots=True)
class Advanced:
    """What came of looking at a run: where it stands, and the tasks whose hosts have not said how they ended.

    `look_again`: something came of it that no event will tell.
    """

    status: RunStatus
    unsettled: Sequence[Link] = ()
    look_again: bool = False


class RunService:
    """Runs plans. The rows of a run say which task each step is; what a step has come to, its task says.

    `routes` are the work types that there are, and the pools that run them. `outdated` is asked before a retry.
    """

    def __init__(
        self,
        pool: Pool,
        service: OrchestratorService,
        approvals: ApprovalService,
        open_runs: OpenRuns,
        *,
        routes: Mapping[str, str],
        outdated: Outdated | None = None,
    ) -> None:
        self._pool = pool
        self._service = service
        self._approvals = approvals
        self._open = open_runs
        self._routes = routes
        self._outdated = outdated

    async def start(
        self,
        plan: Plan,
        inputs: Mapping[str, Any],
        *,
        run_id: UUID,
        request_id: UUID,
        trace_id: UUID,
        requested_by: Caller,
        name: str = "",
        key: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Summary:
        """Run a plan with these inputs; sent again with the same content, it is the same run.

        Raises `InvalidField` for what could never run, `RefusedByPolicy`, and `RunIdTaken`.
        """
        check(plan, inputs)
        new = NewRun(
            run_id, request_id, trace_id, name or plan.name, plan, inputs, requested_by, key, dict(about or {})
        )
        check_dispatch(new, self._service.task_of, self._routes)
        async with transaction(self._pool) as db:
            run = await queries.insert(db, new)
            if run is None:
                run_id = _recognise(new, await queries.known(db, run_id, request_id))
            else:
                turn = await self._take_turn(db, run, told.started(new))
        if run is not None:
            log.info("run.started", extra={"run_id": run_id, "trace_id": trace_id, "by": requested_by.name})
            self._open.add(run_id, trace_id)
            await self._go_on(run_id, begun=(run, turn))
        return await self.summary(run_id)

    async def summary(self, run_id: UUID) -> Summary:
        """Return a run without its plan, or raise `RunNotFound`."""
        async with self._pool.acquire() as db:
            found = await queries.summary(db, run_id)
        if found is None:
            raise RunNotFound(run_id)
        return found

    async def get(self, run_id: UUID) -> RunView:
        """Return a run with its plan and how its steps stand, or raise `RunNotFound`."""
        async with self._pool.acquire() as db, db.transaction(isolation="repeatable_read", readonly=True):
            run = await queries.find(db, run_id)
            if run is None:
                raise RunNotFound(run_id)
            links = await queries.shown(db, run_id, told=told_of(run.plan))
            inner = await inner_steps.of_tasks(db, [link.task_id for link in links if link.task_id is not None])
            is_in_line = run.waits_in_line and run.finished_at is None
            waits_for = await queries.before(db, run) if is_in_line else None
        earlier = [link for link in links if link.superseded][-MOST_EARLIER:]
        return RunView(
            run, steps_of(run, links, inner), [view_of(run, link, inner) for link in earlier], waits_for=waits_for
        )

    async def newest(self, wanted: RunFilter, *, limit: int) -> Listing[Summary]:
        """Return a page of matching runs, newest first."""
        async with self._pool.acquire() as db:
            return await queries.newest(db, wanted, limit=limit)

    async def cancel(self, run_id: UUID, *, by: Caller) -> Summary:
        """Have a run end: its tasks are cancelled, then what it did is undone. Again changes nothing.

        Raises `RunNotFound`, and `RunNotPossible` for a run that has ended otherwise.
        """
        async with transaction(self._pool) as db:
            run = await self._lock(db, run_id)
            if run.finished_at is not None and run.status is not RunStatus.CANCELLED:
                raise RunNotPossible(f"The run has ended: it is {run.status}, so it cannot be cancelled any more.")
            is_new = run.finished_at is None and run.cancelled_by is None and run.ending != "abandoned"
            if is_new:
                await queries.cancel(db, run_id, by=by.name)
                await events.append(db, told.about(Kind.RUN_CANCELLED, run, by.name))
        if is_new:
            log.info("run.cancelled", extra={"run_id": run_id, "by": by.name})
            await self._touched(run)
        return await self.summary(run_id)

    async def abandon(self, run_id: UUID, *, by: Caller) -> Summary:
        """Have a run end as it stands: its tasks are cancelled, nothing is undone, and no host is waited for.

        Raises `RunNotFound`, and `RunNotPossible` for a run that has ended.
        """
        async with transaction(self._pool) as db:
            run = await self._lock(db, run_id)
            if run.finished_at is not None:
                raise RunNotPossible(f"The run has ended: it is {run.status}, so it cannot be abandoned any more.")
            is_new = run.ending != "abandoned"
            if is_new:
                await queries.abandon(db, run_id, reason=f"abandoned by {by.name}")
                await events.append(db, told.about(Kind.RUN_ABANDONED, run, by.name))
        if is_new:
            log.info("run.abandoned", extra={"run_id": run_id, "by": by.name})
            await self._touched(run)
        return await self.summary(run_id)

    async def retry(
        self,
        run_id: UUID,
        *,
        by: Caller,
        from_step: str | None = None,
        reason: str = "",
        changes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Summary:
        """Have a run that has ended go on: from a step, by default from all that failed; what was undone is done anew.

        From now on it runs in the name of who retries it. `changes` are new parameters and hints of steps, by these
        names. Raises `RunNotFound`, `RunNotPossible`, and `InvalidField` for a step that the plan does not have.
        """
        async with transaction(self._pool) as db:
            run = await self._lock(db, run_id)
            if run.finished_at is None:
                raise RunNotPossible(
                    f"The run has not ended: it is {run.status}. Only a run that has ended is tried again."
                )
            if run.status is RunStatus.SUCCEEDED and from_step is None:
                raise RunNotPossible("The run has succeeded: to have it done again, say from which step.")
            if run.plan_problem is not None:
                raise RunNotPossible(f"The plan of the run is not known any more: {run.plan_problem}")
            if self._outdated is not None and (why := self._outdated(run.about, run.plan)) is not None:
                raise RunNotPossible(f"The run is not tried again as it was planned: {why.rstrip('.')}.")
            plan = _changed(run.plan, changes or {})
            links = await queries.links(db, run_id, told=told_of(run.plan))
            steps = rules.to_repeat(history_of(run, plan, links, await _inner(db, links)), from_step=from_step)
            _check_kept(links, steps)
            await queries.supersede(db, run_id, steps, undos=True)
            await queries.retry(db, run_id, plan, by=by)
            said = {
                "from": run.status,
                "from_step": from_step,
                "steps": steps,
                "reason": reason,
                "changed": sorted(changes or {}),
            }
            await events.append(db, told.about(Kind.RUN_RETRIED, run, by.name, said))
        log.info("run.retried", extra={"run_id": run_id, "by": by.name, "from_step": from_step})
        await self._touched(run)
        return await self.summary(run_id)

    async def approve(
        self,
        run_id: UUID,
        *,
        by: Caller,
        comment: str = "",
        approval_id: UUID | None = None,
        until: datetime | None = None,
    ) -> Summary:
        """Say yes to the only approval that a run waits for, or to one of several.

        Raises `RunNotFound`, `RunNotPossible` when it waits for no such approval, or for several and none is named, and
        what `ApprovalService.approve` raises.
        """
        await self._approvals.approve(await self._waited_for(run_id, approval_id), by=by, comment=comment, until=until)
        await self._go_on(run_id)
        return await self.summary(run_id)

    async def reject(self, run_id: UUID, *, by: Caller, reason: str, approval_id: UUID | None = None) -> Summary:
        """Say no to the only approval that a run waits for, or to one of several. Raises what `approve` raises."""
        await self._approvals.reject(await self._waited_for(run_id, approval_id), by=by, reason=reason)
        await self._go_on(run_id)
        return await self.summary(run_id)

    async def advance(self, run_id: UUID, *, wait: bool = False) -> Advanced | None:
        """Do what is due for a run; None when it has ended, or somebody else is at it who is not to be waited for."""
        async with transaction(self._pool) as db:
            run = await queries.lock_open(db, run_id, wait=wait)
            if run is None:
                return None
            turn = await self._take_turn(db, run)
        return await self._follow(run, turn)

    async def open_runs(self, *, after: UUID, limit: int, most_rows: int) -> Listing[Pending]:
        """Return a page of the open runs that something may become of, in the order of their ids, those above `after`.

        The page ends with the run that brings the rows of all its steps to `most_rows`.
        """
        async with self._pool.acquire() as db:
            return await queries.open_runs(db, after=after, limit=limit, most_rows=most_rows)

    async def _lock(self, db: Connection, run_id: UUID) -> Run:
        run = await queries.lock(db, run_id)
        if run is None:
            raise RunNotFound(run_id)
        return run

    async def _waited_for(self, run_id: UUID, approval_id: UUID | None) -> UUID:
        """Return the approval that a run waits for now: the one that is given, or the only one."""
        async with self._pool.acquire() as db:
            run = await queries.find(db, run_id)
            if run is None:
                raise RunNotFound(run_id)
            links = await queries.links(db, run_id, told=())
        waiting = {
            link.approval_id: link.step
            for link in links
            if not link.superseded and link.status is Status.AWAITING_APPROVAL and link.approval_id is not None
        }
        if not waiting:
            raise RunNotPossible(f"The run waits for no approval: it is {run.status}.")
        if approval_id is not None and approval_id not in waiting:
            raise RunNotPossible(f"The run does not wait for the approval {approval_id}.")
        if approval_id is None and len(waiting) > 1:
            named = ", ".join(f"{step} {waits}" for waits, step in waiting.items())
            raise RunNotPossible(f"The run waits for several approvals, and approval_id names none of them: {named}.")
        return approval_id or next(iter(waiting))

    async def _take_turn(self, db: Connection, run: Run, *said: NewEvent) -> Turn | None:
        """Look at a locked run and write what follows, with the events of it behind those that are `said`.

        Returns None for a run that waits in line. One that is to end does so at once, unless something is to be undone.
        """
        is_ending = run.cancelled_by is not None or run.ending is not None
        must_wait = run.waits_in_line and not await queries.admit(db, run)
        if must_wait and not is_ending:
            await events.append(db, *said)
            return None
        if run.plan_problem is not None:
            log.warning("run.plan_not_readable", extra={"run_id": run.run_id, "problem": run.plan_problem})
        links = await queries.links(db, run.run_id, told=told_of(run.plan))
        turn = turn_of(run, links, await _inner(db, links), self._service.task_of)
        if must_wait and turn.tasks:
            return None
        await self._write(db, run, turn, said)
        return turn

    async def _write(self, db: Connection, run: Run, turn: Turn, said: Sequence[NewEvent]) -> None:
        """Write what a look at a locked run led to, its events last."""
        happened = [*said, *(told.step(run, link, status=_status_of(turn, link)) for link in turn.new)]
        if turn.again:
            await queries.supersede(db, run.run_id, turn.again)
        for link in turn.refused:
            happened += await self._refuse(db, run, link)
        stood = (run.status, run.ending, run.error_message, run.started_at is not None)
        stands = (turn.status, turn.ending, turn.error_message, turn.has_begun or run.started_at is not None)
        if stands != stood:
            took = await queries.stand(
                db,
                run.run_id,
                turn.status,
                ending=turn.ending,
                error_message=turn.error_message,
                has_begun=turn.has_begun,
            )
            was = run.status
            for status in passage(run.status, turn):
                happened.append(told.status(run, status, was=was, reason=turn.error_message, took=took))
                was = status
        await queries.add_links(db, run.run_id, turn.new, happened)

    async def _refuse(self, db: Connection, run: Run, link: NewLink) -> list[NewEvent]:
        """Note that a row gets no task; return the events of it."""
        assert link.problem is not None
        if not await queries.refuse(db, run.run_id, link):
            return []
        return [told.step(run, link, status="failed")]

    async def _follow(self, run: Run, turn: Turn | None) -> Advanced:
        """Do what was decided and written."""
        if turn is None:
            return Advanced(run.status)
        look_again = await self._carry_out(run, turn)
        return Advanced(turn.status, turn.unsettled, turn.look_again or look_again)

    async def _carry_out(self, run: Run, turn: Turn) -> bool:
        """Dispatch and cancel what was decided and written; return whether more comes of it than events will tell."""
        self._open.add(run.run_id, run.trace_id)
        self._open.stands(run.run_id, turn.status)
        look_again = await self._dispatch(run, turn.tasks) if turn.tasks else False
        await self._cancel_tasks(run, turn.cancel)
        if turn.is_over:
            log.info("run.ended", extra={"run_id": run.run_id, "status": turn.status})
            if run.key is not None:
                await self._let_next_go(run.key)
        return look_again or bool(turn.cancel)

    async def _let_next_go(self, key: str) -> None:
        async with self._pool.acquire() as db:
            following = await queries.next_of_key(db, key)
        if following is not None:
            self._open.add(*following)
            self._open.due(following[0])

    async def _dispatch(self, run: Run, tasks: Mapping[tuple[str, StepKind, int], NewTask]) -> bool:
        """Dispatch the tasks of rows; one that is dispatched already stays as it is.

        Returns whether the run is to be looked at again: some wait for people, or there is no task after all.
        """
        answers = await self._service.submit_all(list(tasks.values()))
        problems: list[NewLink] = []
        look_again = False
        for (row, task), answer in zip(tasks.items(), answers, strict=True):
            if isinstance(answer, Identity) and (answer.trace_id, answer.request_id) == (run.trace_id, task.request_id):
                look_again = look_again or answer.status is Status.AWAITING_APPROVAL
            elif isinstance(answer, Identity | IdempotencyConflict):
                taken = f"the id of its task, {task.task_id}, was taken before by a task that is not of this run"
                problems.append(NewLink(*row, problem=taken))
            elif isinstance(answer, ChiffonError):
                problems.append(NewLink(*row, task.task_id, problem=str(answer)))
            else:
                raise answer
        if problems:
            async with transaction(self._pool) as db:
                happened = [event for link in problems for event in await self._refuse(db, run, link)]
                await events.append(db, *happened)
        async with self._pool.acquire() as db:
            refused = await queries.refused(db, [task.task_id for task in tasks.values()])
        await self._cancel_tasks(run, refused)
        return look_again or bool(problems) or bool(refused)

    async def _cancel_tasks(self, run: Run, task_ids: Iterable[UUID]) -> None:
        for task_id in task_ids:
            try:
                # A run that was abandoned was cancelled by no caller.
                await self._service.cancel_task(task_id, by=run.cancelled_by or ORCHESTRATOR)
            except (TaskHasEnded, TaskNotFound) as gone:
                log.info("run.task_not_cancelled", extra={"run_id": run.run_id, "reason": str(gone)})

    async def _touched(self, run: Run) -> None:
        """Go on with a run to which somebody has done something."""
        self._open.add(run.run_id, run.trace_id)
        await self._go_on(run.run_id)

    async def _go_on(self, run_id: UUID, *, begun: tuple[Run, Turn | None] | None = None) -> None:
        """Advance a run as far as it goes now, from what has `begun`; what fails or is left over, the loop does."""
        try:
            for _ in range(MOST_LOOKS):
                done = await (self.advance(run_id, wait=True) if begun is None else self._follow(*begun))
                begun = None
                if done is None or not done.look_again:
                    return
        except Exception:
            log.exception("run.not_advanced", extra={"run_id": run_id})
        self._open.due(run_id)


async def unsettled_on(db: Connection, agent_id: UUID) -> list[Link]:
    """Return the rows of open runs whose tasks have ended here while this host, which owns their end, has not said how.

    Of one run `Advanced.unsettled` has the same.
    """
    links = await queries.on_host(db, agent_id)
    return unsettled(links, await _inner(db, links))


async def _inner(db: Connection, links: Sequence[Link]) -> Inner:
    owned = [link.task_id for link in links if is_owned(link) and link.task_id is not None]
    return await inner_steps.of_tasks(db, owned) if owned else {}


def _recognise(new: NewRun, known: Sequence[KnownRun]) -> UUID:
    """Return the run that was started before under one of these ids, or raise `RunIdTaken`."""
    for one in known:
        if len(known) > 1 or one.digest != new.digest:
            if one.run_id == new.run_id:
                raise RunIdTaken("run_id", new.run_id, one.run_id)
            raise RunIdTaken("request_id", new.request_id, one.run_id)
    return known[0].run_id


def _check_kept(links: Sequence[Link], again: Sequence[str]) -> None:
    """Raise `RunNotPossible` unless the tasks of the steps that a retry keeps are still in the ledger.

    Without them nobody could tell whether they are done already.
    """
    kept = (link for link in links if link.kind is StepKind.STEP and not link.superseded and link.step not in again)
    if removed := [link.step for link in kept if link.awaits_dispatch]:
        raise RunNotPossible(
            f"The retry would keep steps whose tasks were removed from the ledger: {', '.join(removed)}. To have them "
            "done again, retry from the first of them; otherwise start another run."
        )


def _changed(plan: Plan, changes: Mapping[str, Mapping[str, Any]]) -> Plan:
    """Return a plan with other parameters and hints of some steps."""
    unknown = changes.keys() - {step.name for step in plan.steps}
    if unknown:
        raise InvalidField("changes", f"{', '.join(sorted(unknown))}: no step of this plan has this name")
    steps = [step.model_copy(update=dict(changes.get(step.name, {}))) for step in plan.steps]
    return plan.model_copy(update={"steps": steps})


def _status_of(turn: Turn, link: NewLink) -> str:
    """Return where a row begins that is new."""
    task = turn.tasks.get((link.step, link.kind, link.number))
    return "failed" if task is None else task.status.value
