"""How the demonstration looks: a line for everything that happens, and a table at the end."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import fmean
from uuid import UUID

from chiffon.cli.console import print_table, put, put_styled
from chiffon.cli.show import seconds
from chiffon.demo.work import DemoTask
from chiffon.output import Transcript
from common.lifecycle import Status
from common.messages import Stream
from common.rest.events import Event
from common.rest.tasks import TaskStatus

VERBS = {
    "task.dispatched": ("is dispatched", "dim"),
    "task.claimed": ("starts", "cyan"),
    "task.completed": ("completed", "green"),
    "task.failed": ("failed", "bold red"),
    "task.cancelled": ("cancelled", "yellow"),
    "task.requeued": ("waits for another attempt", "yellow"),
}
NAME_WIDTH = 14


class LiveView:
    """Prints events and output lines as they come: in colour on a terminal, plain otherwise."""

    def __init__(self, tasks: Sequence[DemoTask], agents: Mapping[UUID, str]) -> None:
        self._tasks = {task.task_id: task for task in tasks}
        self._agents = agents
        self._transcripts: dict[UUID, Transcript] = defaultdict(Transcript)
        self._begin: datetime | None = None

    @property
    def is_complete(self) -> bool:
        """True when every task has ended and everything it wrote was shown."""
        return all(self._transcripts[task_id].is_complete for task_id in self._tasks)

    def show(self, event: Event) -> None:
        task = None if event.task_id is None else self._tasks.get(event.task_id)
        if task is None:
            return
        self._begin = self._begin or event.at
        for piece in self._transcripts[task.task_id].take_event(event):
            mark, style = ("!", "red") if piece.stream is Stream.STDERR else ("|", "")
            for line in piece.text.splitlines():
                self._line(event.at, task, (f"  {mark} {line}", style))
        if event.kind in VERBS:
            verb, style = VERBS[event.kind]
            self._line(event.at, task, (verb + self._detail(event, task), style))

    def _line(self, at: datetime, task: DemoTask, what: tuple[str, str]) -> None:
        assert self._begin is not None
        since = (at - self._begin).total_seconds()
        put_styled((f"{since:6.2f} s  ", "dim"), (f"{task.name:<{NAME_WIDTH}}", ""), what)

    def _detail(self, event: Event, task: DemoTask) -> str:
        match event.kind:
            case "task.dispatched":
                return f" with priority {task.priority}"
            case "task.claimed" if event.agent_id is not None:
                return f" on {self._agents.get(event.agent_id, str(event.agent_id))}"
            case "task.completed" | "task.failed" if event.data.get("exit_code") is not None:
                return f" with exit status {event.data['exit_code']}"
            case _:
                return ""


def print_summary(results: Sequence[tuple[DemoTask, TaskStatus]], agents: Mapping[UUID, str]) -> None:
    """Print what ran where, how long it waited and ran, and how it ended, in the order in which it started."""
    columns = ("TASK", "PRIORITY", "AGENT", "WAITED", "RAN", "EXIT", "ENDED")
    rows = sorted(results, key=lambda pair: pair[1].started_at or pair[1].created_at)
    print_table(
        columns,
        (
            (
                task.name,
                task.priority,
                None if status.agent_id is None else agents.get(status.agent_id, str(status.agent_id)),
                None if (waited := waited_for(status)) is None else seconds(waited),
                None if status.duration_ms is None else seconds(timedelta(milliseconds=status.duration_ms)),
                status.exit_code,
                status.status,
            )
            for task, status in rows
        ),
    )
    put("Waited on average: " + ", ".join(f"priority {name}: {time:.2f} s" for name, time in _averages(results)))


def judge(results: Sequence[tuple[DemoTask, TaskStatus]], *, agents_wanted: int) -> list[str]:
    """Return what did not end as expected; nothing when the demonstration succeeded."""
    complaints = []
    for task, status in results:
        wrong_exit = task.ends is not Status.CANCELLED and status.exit_code != task.exit_code
        if status.status is not task.ends or wrong_exit:
            complaints.append(
                f"{task.name} should have {_past(task)}, but is {status.status}"
                f" (exit status {status.exit_code}, {status.error_message or 'no error'})"
            )
    used = {status.agent_id for _, status in results if status.agent_id is not None}
    if len(used) < agents_wanted:
        complaints.append(f"{len(used)} of {agents_wanted} agents ran something")
    return complaints


def waited_for(status: TaskStatus) -> timedelta | None:
    return None if status.started_at is None else status.started_at - status.created_at


def _past(task: DemoTask) -> str:
    if task.ends is Status.CANCELLED:
        return "been cancelled"
    return f"{task.ends} with exit status {task.exit_code}"


def _averages(results: Sequence[tuple[DemoTask, TaskStatus]]) -> list[tuple[int, float]]:
    times: dict[int, list[float]] = defaultdict(list)
    for task, status in results:
        if (waited := waited_for(status)) is not None:
            times[task.priority].append(waited.total_seconds())
    return [(priority, fmean(times[priority])) for priority in sorted(times, reverse=True)]
