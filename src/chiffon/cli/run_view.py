"""How a run looks on a terminal: its steps with their states and durations, and a line for each change."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from chiffon.cli.console import STYLES, draw_block, print_fields, print_json, print_table, put_styled, terminal_height
from chiffon.cli.show import clock, seconds, shorten
from common.artifacts import FILE_TYPE
from common.messages import StepStatus
from common.plans.status import RunStatus
from common.rest.artifacts import Artifact
from common.rest.runs import Run, RunStep, RunStepStatus, RunSummary, StepKind
from common.visible import shown_output

Key = tuple[str, ...]
Line = list[tuple[str, str]]

GOING_ON = frozenset({RunStepStatus.RUNNING, StepStatus.IN_PROGRESS})
WAITING = frozenset({RunStepStatus.PENDING, RunStepStatus.AWAITING_APPROVAL})
# The key of the run itself.
WHOLE = ("run",)
INDENT = "  "
WIDEST_NAME = 32
WIDEST_AGENT = 24
# Of the id of an agent without a name, as much as other commands take for it.
SHORT_ID = 8
WIDEST_STATUS = len(RunStepStatus.AWAITING_APPROVAL)
UNDO = "undo "
# A run is queued just after it is created; later, when it was tried again.
A_MOMENT = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Row:
    """A step, or below it a part that its host does by itself, as it stands."""

    key: Key
    name: str
    status: str
    started_at: datetime | None
    finished_at: datetime | None
    note: str
    agent: str = ""

    @property
    def took(self) -> timedelta | None:
        """How long it took, once it is over."""
        if self.status in GOING_ON or self.started_at is None or self.finished_at is None:
            return None
        return max(timedelta(0), self.finished_at - self.started_at)


def rows_of(run: Run) -> list[Row]:
    """Return the steps of a run in its order, each with its inner steps behind it."""
    return [row for step in run.steps for row in _rows(step)]


def title_of(run: RunSummary) -> str:
    """Return what people call a run: its name, or its id."""
    return run.name or str(run.run_id)


def describe_run(run: RunSummary) -> str:
    """Return the status of a run with its reason, for example `failed (build: exit status 1)`."""
    return f"{run.status} ({run.error_message})" if run.error_message else str(run.status)


def reason_of(run: Run) -> str:
    """Return why a run did not succeed, without what is said of the step that failed where its steps are shown."""
    message = run.error_message or ""
    for step in run.steps:
        said = f"{step_name(step)} failed: {(step.error_message or '').rstrip('.')}"
        if step.error_message and message.startswith(said):
            return f"{step_name(step)} failed{message[len(said) :].removeprefix('.')}"
    return message


def _described(run: Run) -> str:
    """Return what `describe_run` does, for where the steps are shown, too."""
    reason = reason_of(run)
    return f"{run.status} ({reason})" if reason else str(run.status)


class RunView:
    """Shows a run as it changes: on a terminal a block of all steps at its bottom, elsewhere a line for each change."""

    def __init__(self, *, is_live: bool) -> None:
        self._is_live = is_live
        self._drawn = 0
        self._run: Run | None = None
        self._seen: dict[Key, str] = {}
        # When this side saw a row begin: the clock of a host, by which it began, may be another.
        self._begun: dict[Key, datetime] = {}
        self._width = 0
        self._agent_width = 0
        self._waits: dict[Key, tuple[tuple[object, ...], str]] = {}

    def show(self, run: Run, at: datetime) -> None:
        """Show a run as it stands now."""
        if run is self._run:
            return
        is_first, self._run = self._run is None, run
        rows = rows_of(run)
        names = (title_of(run), *(row.name for row in rows))
        self._width = max([self._width, *(min(len(name), WIDEST_NAME) for name in names)])
        self._agent_width = max([self._agent_width, *(min(len(row.agent), WIDEST_AGENT) for row in rows)])
        for row in rows:
            if row.status not in WAITING:
                self._waits.pop(row.key, None)
            if row.status in GOING_ON:
                began = row.started_at if is_first and row.started_at is not None else at
                self._begun.setdefault(row.key, min(began, at))
        if self._is_live:
            self.draw(at)
            return
        whole = Row(WHOLE, title_of(run), str(run.status), run.started_at, run.finished_at, reason_of(run))
        # Of an earlier round whose place another took in the meantime, its end is still to be shown.
        rows = [row for step in run.earlier for row in _rows(step) if row.key in self._seen] + rows
        # What a run comes to stands behind what its steps came to, and what it begins with before them.
        for row in [*rows, whole] if run.is_final else [whole, *rows]:
            if self._seen.get(row.key) != row.status:
                self._seen[row.key] = row.status
                if row.status != RunStepStatus.PENDING:
                    put_styled((f"{clock(at)}  ", ""), *self._line(row, at))

    def wrote(self, name: str, mark: str, text: str, at: datetime) -> None:
        """Show a line that a step wrote; the block comes back when it is drawn next."""
        self._clear()
        what = shown_output(text.rstrip("\r")).expandtabs()
        put_styled((f"{clock(at)}  ", "dim"), (f"{_padded(name, self._width)}  ", "dim"), (f"{mark} {what}", ""))

    def waits(self, step: RunStep, reason: str, cause: tuple[object, ...], at: datetime) -> None:
        """Show why a step waits, unless that was shown last; the same `cause` may have other numbers in its reason."""
        row = next(_rows(step))
        self._waits_for(row, reason, cause, at)

    def waits_in_line(self, reason: str | None, at: datetime) -> None:
        """Show why the whole run waits, if it does; at a terminal its head says so."""
        if reason is not None and self._run is not None and not self._is_live:
            row = Row(WHOLE, title_of(self._run), str(self._run.status), None, None, "")
            self._waits_for(row, reason, (reason,), at)

    def _waits_for(self, row: Row, reason: str, cause: tuple[object, ...], at: datetime) -> None:
        before, self._waits[row.key] = self._waits.get(row.key), (cause, reason)
        if not self._is_live and (before is None or before[0] != cause):
            put_styled((f"{clock(at)}  ", ""), *self._line(replace(row, note=reason), at))

    def draw(self, at: datetime) -> None:
        """Draw the block anew, with the durations of now."""
        if not self._is_live or self._run is None:
            return
        run = self._run
        until = run.finished_at if run.finished_at is not None and run.is_final else at
        since = until - (run.started_at or run.created_at)
        head = [(title_of(run), "bold"), ("  ", ""), (_described(run), STYLES.get(run.status, ""))]
        head.append((f"  {seconds(max(timedelta(0), since))}", ""))
        if run.waits_for is not None:
            head.append((f"  behind the run {run.waits_for}", "dim"))
        rows = [self._line(row, at) for row in _fitting(rows_of(run), terminal_height() - 2)]
        block = [head, *rows]
        draw_block(block, over=self._drawn)
        self._drawn = len(block)

    def _clear(self) -> None:
        if self._drawn:
            draw_block([], over=self._drawn)
            self._drawn = 0

    def _line(self, row: Row, at: datetime) -> Line:
        took = row.took
        if row.status in GOING_ON and row.key in self._begun:
            took = at - self._begun[row.key]
        lasted = "" if took is None or (row.status in GOING_ON and not self._is_live) else seconds(took)
        _, waits = self._waits.get(row.key, ((), ""))
        note = waits if self._is_live and waits else row.note
        agent = f"  {shorten(row.agent, WIDEST_AGENT):<{self._agent_width}}" if self._agent_width else ""
        return [
            (f"{_padded(row.name, self._width)}  ", ""),
            (f"{row.status:<{WIDEST_STATUS}}", STYLES.get(row.status, "")),
            (f"  {lasted:>9}", ""),
            (agent, ""),
            (f"  {note}" if note else "", "dim"),
        ]


def print_run(run: Run, *, as_json: bool, earlier: bool = False) -> None:
    """Print a run with its steps, and with `earlier` also with those whose place others took."""
    if as_json:
        print_json(run)
        return
    print_fields(
        (
            ("run", run.run_id),
            ("name", run.name),
            ("status", _described(run)),
            ("service", run.service),
            ("key", run.key),
            ("waits for", run.waits_for),
            ("requested by", run.requested_by),
            ("trace", run.trace_id),
            ("created", run.created_at),
            ("queued", run.queued_at if run.queued_at - run.created_at > A_MOMENT else None),
            ("took", _took(run)),
            ("cancelled by", run.cancelled_by),
        )
    )
    steps = [*(run.earlier if earlier else ()), *run.steps]
    print_table(
        ("STEP", "STATUS", "TRY", "TOOK", "AGENT", "TASK", "WHAT"),
        [cells for step in steps for cells in _cells(step)],
    )


def print_runs(runs: Sequence[RunSummary]) -> None:
    """Print a list of runs."""
    print_table(
        ("RUN", "NAME", "STATUS", "SERVICE", "BY", "CREATED", "TOOK", "WHY"),
        (
            (
                run.run_id,
                run.name or None,
                run.status,
                run.service,
                run.requested_by,
                run.created_at,
                _took(run),
                None if run.error_message is None else shorten(run.error_message, 60),
            )
            for run in runs
        ),
    )


def print_artifacts(artifacts: Sequence[Artifact]) -> None:
    """Print a list of artifacts."""
    print_table(
        ("ARTIFACT", "PATH", "TYPE", "BYTES", "SHA-256", "TASK", "WHY NOT"),
        (
            (
                one.artifact_id,
                one.path,
                one.type if one.type != FILE_TYPE else None,
                one.size,
                one.sha256,
                one.task_id,
                one.missing or (None if one.stored_at is not None else "it is still on its way"),
            )
            for one in artifacts
        ),
    )


def accepted_line(run_id: UUID, status: str) -> str:
    """Say what to do about a run that was accepted just now and has this status."""
    if status == RunStatus.AWAITING_APPROVAL:
        return f"It waits for people: `chiffon runs show {run_id}` names the approval."
    return f"Started. To see how it goes: chiffon runs watch {run_id}"


def _rows(step: RunStep) -> Iterator[Row]:
    name = step_name(step)
    times = (step.started_at, step.finished_at)
    yield Row((step.step, step.kind, str(step.number)), name, step.status, *times, _note(step), agent_of(step))
    for inner in step.inner:
        key = (step.step, step.kind, str(step.number), str(step.attempt), inner.name)
        yield Row(
            key, INDENT + inner.name, inner.status, inner.started_at, inner.finished_at, " ".join(inner.message.split())
        )


def step_name(step: RunStep) -> str:
    """Return what a step is called, also when it is what undoes one."""
    return name_of(step.step, step.kind)


def name_of(step: str, kind: str) -> str:
    return f"{UNDO}{step}" if kind == StepKind.UNDO else step


def agent_of(step: RunStep) -> str:
    """Return the name of the agent of a step, or the beginning of its id when it has none."""
    return step.agent_name or ("" if step.agent_id is None else str(step.agent_id)[:SHORT_ID])


def _note(step: RunStep) -> str:
    if step.status == RunStepStatus.AWAITING_APPROVAL:
        return "" if step.approval_id is None else f"chiffon approvals show {step.approval_id}"
    notes = [f"try {step.number}" if step.number > 1 else ""]
    if step.status in GOING_ON:
        notes.append(step.progress)
    elif step.status != RunStepStatus.SUCCEEDED:
        notes.append(step.error_message or "")
    return ", ".join(note for note in notes if note)


def _cells(step: RunStep) -> Iterator[tuple[object, ...]]:
    for number, row in enumerate(_rows(step)):
        took = None if row.took is None else seconds(row.took)
        if number > 0:
            yield row.name, row.status, None, took, None, None, row.note or None
            continue
        why = step.error_message or step.progress
        if step.status == RunStepStatus.AWAITING_APPROVAL:
            why = _note(step)
        yield row.name, row.status, step.number or None, took, row.agent or None, step.task_id, why or None


def _took(run: RunSummary) -> str | None:
    if run.started_at is None or run.finished_at is None or not run.is_final:
        return None
    return seconds(max(timedelta(0), run.finished_at - run.started_at))


def _fitting(rows: Sequence[Row], height: int) -> list[Row]:
    """Return as many rows as there is room for: those that are over go first, from the beginning."""
    room = max(3, height)
    if len(rows) <= room:
        return list(rows)
    first_open = next((place for place, row in enumerate(rows) if row.status in GOING_ON), len(rows))
    begin = min(first_open, len(rows) - (room - 2))
    end = begin + room - 2
    return [*_left_out(begin, "before"), *rows[begin:end], *_left_out(len(rows) - end, "after")]


def _left_out(count: int, where: str) -> list[Row]:
    return [Row(("…", where), f"… {count} {where}", "", None, None, "")] if count > 0 else []


def _padded(name: str, width: int) -> str:
    return f"{shorten(name, WIDEST_NAME):<{width}}"
