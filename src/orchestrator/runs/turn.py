"""What is to be written and done for a run now, and how people see it: pure decisions over one look at its tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import assert_never
from uuid import UUID

from common.errors import ChiffonError, InvalidField
from common.plans.model import Plan
from common.plans.status import RunStatus
from common.rest.runs import RunStepStatus, StepKind
from orchestrator.identities.model import Forbidden
from orchestrator.runs import rules
from orchestrator.runs.dispatching import MakeTask, Origin, task_for, task_id_for
from orchestrator.runs.model import Ending, Link, NewLink, Run, StepView
from orchestrator.runs.states import Inner, error_of, inner_of, states_of, status_of, unsettled
from orchestrator.tasks.model import NewTask


@dataclass(frozen=True, slots=True)
class Turn:
    """What follows from a look at a run: `again`, `new` and `refused` are written first, `tasks` then dispatched.

    `refused` are rows whose tasks cannot be dispatched after all, `cancel` tasks that are to be cancelled, `unsettled`
    those whose hosts have not said how they ended. `has_begun`: a task of this try has begun. `look_again`: something
    came of it that no event will tell.
    """

    status: RunStatus
    ending: Ending | None
    error_message: str | None
    has_begun: bool
    again: Sequence[str] = ()
    new: Sequence[NewLink] = ()
    refused: Sequence[NewLink] = ()
    tasks: Mapping[tuple[str, StepKind, int], NewTask] = field(default_factory=dict)
    cancel: Sequence[UUID] = ()
    unsettled: Sequence[Link] = ()
    look_again: bool = False

    @property
    def is_over(self) -> bool:
        return self.status.is_final


def history_of(run: Run, plan: Plan, links: Sequence[Link], inner: Inner) -> rules.History:
    """Return what is known of the steps of a run, by the rows of its tasks."""
    newest, earlier = states_of(links, inner, queued_at=run.queued_at)
    return rules.History.of_plan(plan, run.inputs, {"id": str(run.run_id), "name": run.name}, newest, earlier)


def turn_of(run: Run, links: Sequence[Link], inner: Inner, make: MakeTask) -> Turn:
    """Return what is to be done for an open run that may go."""
    begun = _Begun(run, make)
    history = history_of(run, run.plan, links, inner)
    lost = [link for link in links if link.awaits_dispatch and not link.superseded]
    for one in lost:
        begun.dispatch_again(one, pause=_pause_before(run, history, one))
    if run.ending == "abandoned":
        return _abandoned(run, links, begun)
    if run.plan_problem is not None:
        # Another version may know it; whoever gives up on that abandons the run.
        return Turn(run.status, run.ending, run.error_message, False, cancel=_to_cancel(run, links))
    move = rules.advance(history, ending=run.ending, cancelled=run.cancelled_by is not None)
    for start in move.starts:
        begun.begin(start)
    return Turn(
        move.status,
        move.ending,
        move.error_message,
        move.status is RunStatus.RUNNING or _has_begun(run, links),
        again=() if move.again is None else move.again.steps,
        new=begun.new,
        refused=begun.refused,
        tasks=begun.tasks,
        cancel=_to_cancel(run, links),
        unsettled=unsettled(links, inner),
        look_again=begun.has_refused or (run.cancelled_by is not None and bool(lost)),
    )


class _Begun:
    """The rows and tasks of the steps that begin."""

    def __init__(self, run: Run, make: MakeTask) -> None:
        self._run = run
        self._origin = Origin.of(run)
        self._make = make
        self.new: list[NewLink] = []
        self.refused: list[NewLink] = []
        self.tasks: dict[tuple[str, StepKind, int], NewTask] = {}

    @property
    def has_refused(self) -> bool:
        return bool(self.refused) or any(link.problem is not None for link in self.new)

    def begin(self, start: rules.Start | rules.Refuse) -> None:
        match start:
            case rules.Refuse(step=step, kind=kind, number=number, problem=problem):
                self.new.append(NewLink(step, kind, number, problem=problem))
            case rules.Start(step=step, kind=kind, number=number):
                self._start(start)
            case _:
                assert_never(start)

    def dispatch_again(self, link: Link, *, pause: timedelta) -> None:
        """Dispatch the task of a row that was written before a crash."""
        given = NewLink(link.step, link.kind, link.number, link.task_id, link.parameters, link.hints, pause=pause)
        try:
            task = self._task(given)
        except ChiffonError as error:
            self.refused.append(replace(given, problem=str(error)))
        else:
            self.tasks[link.step, link.kind, link.number] = task

    def _start(self, start: rules.Start) -> None:
        step = next(step for step in self._run.plan.steps if step.name == start.step)
        part = step if start.kind is StepKind.STEP or step.undo is None else step.undo
        link = NewLink(
            start.step,
            start.kind,
            start.number,
            task_id_for(self._run.run_id, start.step, start.kind, start.number),
            # What the plan says literally is not stored twice.
            None if start.parameters == part.parameters else start.parameters,
            None if start.hints == part.hints else start.hints,
            pause=start.pause,
        )
        try:
            task = self._task(link)
        except ChiffonError as error:
            self.new.append(NewLink(start.step, start.kind, start.number, problem=str(error)))
        else:
            self.new.append(link)
            self.tasks[start.step, start.kind, start.number] = task

    def _task(self, link: NewLink) -> NewTask:
        """Return the task of a row. Raises `Forbidden`, and what `task_for` raises.

        What undoes a step goes also in the name of somebody who is disabled.
        """
        if self._run.plan_problem is not None:
            raise InvalidField("plan", self._run.plan_problem)
        if self._run.starter_is_disabled and link.kind is StepKind.STEP:
            name = self._run.requested_by.name
            raise Forbidden(f"{name!r}, in whose name it would run, was disabled: whoever retries it, runs it.")
        return task_for(self._origin, self._run.plan, link, self._make)


def _pause_before(run: Run, history: rules.History, link: Link) -> timedelta:
    """Return how long the task of a row waits at first."""
    is_step = link.kind is StepKind.STEP and run.plan_problem is None
    return history.pause_before(link.step) if is_step else rules.NO_PAUSE


def _abandoned(run: Run, links: Sequence[Link], begun: _Begun) -> Turn:
    """Have everything cancelled that is open, and the run ended then; hosts that own how it ends go on by themselves.

    A row without its task gets it first: whoever wrote the row may be about to dispatch it.
    """
    still_open = [link.task_id for link in links if link.is_open and link.task_id is not None]
    return Turn(
        run.status if still_open or begun.tasks else RunStatus.FAILED,
        "abandoned",
        run.error_message,
        _has_begun(run, links),
        refused=begun.refused,
        tasks=begun.tasks,
        cancel=still_open,
        look_again=bool(begun.tasks),
    )


def _to_cancel(run: Run, links: Sequence[Link]) -> list[UUID]:
    """Return the tasks of steps that a cancelled run leaves; what undoes them goes on."""
    if run.cancelled_by is None:
        return []
    return [
        link.task_id
        for link in links
        if link.kind is StepKind.STEP and link.is_open and not link.superseded and link.task_id is not None
    ]


def _has_begun(run: Run, links: Sequence[Link]) -> bool:
    return any(link.attempt > 0 and link.at >= run.queued_at for link in links)


def passage(was: RunStatus, turn: Turn) -> list[RunStatus]:
    """Return where a run stands one after another; one that began and ended between two looks has run, too."""
    if turn.status is was:
        return []
    waited = was in (RunStatus.PENDING, RunStatus.AWAITING_APPROVAL)
    return [RunStatus.RUNNING, turn.status] if waited and turn.is_over and turn.has_begun else [turn.status]


def steps_of(run: Run, links: Sequence[Link], inner: Inner) -> list[StepView]:
    """Return the steps of a run in the order of its plan, then what undoes them, as they stand."""
    if run.plan_problem is not None:
        return [view_of(run, link, inner) for link in links if not link.superseded]
    move = rules.advance(
        history_of(run, run.plan, links, inner),
        # Of what has ended by a failure, the failure says why steps did not begin.
        ending="failed" if run.ending == "abandoned" else None if run.finished_at is not None else run.ending,
        cancelled=run.cancelled_by is not None,
    )
    rows = {link.key: link for link in links if not link.superseded}
    shown: list[StepView] = []
    for step in run.plan.steps:
        standing = move.standings[step.name]
        link = rows.get((step.name, StepKind.STEP))
        shown.append(
            StepView(
                step.name,
                StepKind.STEP,
                standing.status,
                step.work_type,
                problem=standing.problem,
                link=link,
                inner=() if link is None else inner_of(link, inner),
            )
        )
    undos = [link for link in links if link.kind is StepKind.UNDO and not link.superseded]
    return [*shown, *(view_of(run, link, inner) for link in undos)]


def view_of(run: Run, link: Link, inner: Inner) -> StepView:
    """Return the row of a step as people see it."""
    status: RunStepStatus = status_of(link, inner)
    return StepView(
        link.step,
        link.kind,
        status,
        link.work_type or _work_type(run, link),
        problem=error_of(link, inner) or "",
        link=link,
        inner=inner_of(link, inner),
    )


def _work_type(run: Run, link: Link) -> str:
    part = next((step for step in run.plan.steps if step.name == link.step), None)
    if part is not None and link.kind is StepKind.UNDO:
        return "" if part.undo is None else part.undo.work_type
    return "" if part is None else part.work_type
