"""How tasks, agents and events look on a terminal."""

import json
import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta

from chiffon.cli.console import print_fields, print_json, print_table, put, put_output
from common.lifecycle import Status
from common.messages import Stream
from common.rest.agents import Agent
from common.rest.audit import AuditEvent
from common.rest.capacity import Capacity
from common.rest.dead_letters import DeadLetter, DeadLetterDetail
from common.rest.events import Event
from common.rest.tasks import TaskStatus, TaskSummary
from common.visible import quoted

# How much of what a task does stands in a list, and how much of its parameters in its detail; JSON has all of it.
WIDEST = 40
WIDEST_DETAIL = 500


def print_task(task: TaskStatus, *, as_json: bool, raw: bool) -> None:
    """Print one task with the end of its output."""
    if as_json:
        print_json(task)
        return
    print_fields(
        (
            ("task", task.task_id),
            ("name", task.name),
            ("status", describe_end(task)),
            ("work", f"{task.work_type} on {task.agent_type}, priority {task.priority}"),
            ("parameters", _parameters(task)),
            ("labels", ", ".join(f"{name}={value}" for name, value in task.labels.items())),
            ("requested by", task.requested_by),
            ("attempt", f"{task.attempt} of {task.max_attempts}"),
            ("agent", _agent(task)),
            ("request", task.request_id),
            ("trace", task.trace_id),
            ("rerun of", task.rerun_of),
            ("created", task.created_at),
            ("waited", _waited(task)),
            ("ran", None if task.duration_ms is None else seconds(timedelta(milliseconds=task.duration_ms))),
            ("progress", task.progress),
            ("result", None if task.result is None else json.dumps(task.result, ensure_ascii=False)),
        )
    )
    if task.output:
        put("")
        put_output(task.output.rstrip("\n") + "\n", Stream.STDOUT, raw=raw)


def print_tasks(tasks: Sequence[TaskSummary]) -> None:
    columns = ("TASK", "STATUS", "WORK", "WHAT", "FOR", "AGENT", "PRIORITY", "ATTEMPT", "CREATED", "RAN", "PROGRESS")
    print_table(
        columns,
        (
            (
                task.task_id,
                task.status,
                task.work_type,
                shorten(task.name or what(task), WIDEST),
                task.requested_by,
                task.agent_name or task.agent_type,
                task.priority,
                task.attempt,
                task.created_at,
                None if task.duration_ms is None else seconds(timedelta(milliseconds=task.duration_ms)),
                _progress(task),
            )
            for task in tasks
        ),
    )


def _progress(task: TaskSummary) -> str | None:
    """Return where a task stands that runs; of others the status says it."""
    return task.progress if task.status is Status.RUNNING and task.progress else None


def what(task: TaskSummary) -> str:
    """Say in a few words what a task does: its program, the first line of its script, or its parameters."""
    argv, script = task.parameters.get("argv"), task.parameters.get("script")
    if isinstance(argv, list):
        return shlex.join(map(str, argv))
    if isinstance(script, str):
        lines = [line for line in script.splitlines() if line.strip() and not line.startswith("#!")]
        return lines[0] if lines else ""
    return json.dumps(task.parameters, ensure_ascii=False) if task.parameters else ""


def shorten(text: str, width: int) -> str:
    """Return the text, or its beginning with an ellipsis, in at most so many characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def print_agents(agents: Sequence[Agent]) -> None:
    columns = (
        "NAME",
        "AGENT",
        "TYPE",
        "STATUS",
        "HELD",
        "HOST",
        "SLOTS",
        "CPU",
        "MEMORY",
        "LAST HEARTBEAT",
        "WORK TYPES",
    )
    print_table(
        columns,
        (
            (
                agent.name,
                agent.agent_id,
                agent.agent_type,
                agent.status,
                _held(agent),
                agent.hostname,
                f"{len(agent.current_tasks)}/{agent.slots}",
                None if agent.resources is None else f"{agent.resources.cpu_percent:.0f}%",
                None if agent.resources is None else f"{agent.resources.memory_percent:.0f}%",
                agent.last_heartbeat_at,
                ",".join(agent.work_types),
            )
            for agent in agents
        ),
    )


def print_capacity(found: Capacity) -> None:
    print_table(
        ("NAME", "TYPE", "CAN", "FREE SLOTS", "WHY NOT"),
        (
            (
                agent.name,
                agent.agent_type,
                "yes" if agent.can else "no",
                f"{agent.free_slots}/{agent.slots}",
                "; ".join(agent.reasons),
            )
            for agent in found.agents
        ),
    )


def print_dead_letters(letters: Sequence[DeadLetter]) -> None:
    columns = ("ID", "KIND", "STATE", "QUEUE", "TYPE", "AT", "TASK", "REASON")
    print_table(
        columns,
        (
            (
                letter.id,
                letter.kind,
                letter.state,
                letter.queue,
                letter.type,
                letter.at,
                letter.task_id,
                letter.reason,
            )
            for letter in letters
        ),
    )


def print_dead_letter(letter: DeadLetterDetail) -> None:
    """Print a dead letter with its body; a body that is no text is printed as base64."""
    kept = " (only the first MiB was kept)" if letter.body_truncated else ""
    settled = None if letter.settled_at is None else f"{letter.state} by {letter.settled_by} at {letter.settled_at}"
    print_fields(
        (
            ("dead letter", letter.id),
            ("kind", letter.kind),
            ("state", settled or letter.state),
            ("queue", letter.queue),
            ("type", letter.type),
            ("reason", letter.reason),
            ("message", letter.message_id),
            ("task", letter.task_id),
            ("replayed as", letter.replayed_as),
            ("at", letter.at),
            ("size", f"{letter.body_bytes} bytes{kept}" if letter.kind == "message" else None),
            ("encoding", letter.body_encoding if letter.kind == "message" else None),
        )
    )
    if letter.body_json is not None:
        put("", *json.dumps(letter.body_json, indent=2).split("\n"))
    elif letter.body:
        put("", *letter.body.split("\n"))


def _agent(task: TaskStatus) -> str | None:
    if task.agent_id is None:
        return None
    return str(task.agent_id) if task.agent_name is None else f"{task.agent_name}, {task.agent_id}"


def _parameters(task: TaskStatus) -> str | None:
    if not task.parameters:
        return None
    return shorten(json.dumps(task.parameters, ensure_ascii=False), WIDEST_DETAIL)


def _held(agent: Agent) -> str | None:
    """Say what keeps work from an agent, if anything does."""
    if agent.draining:
        return _because("draining", agent.drain_note)
    if agent.paused_until is not None:
        return _because(f"paused until {agent.paused_until.astimezone():%H:%M:%S}", agent.pause_note)
    if agent.clock_off_seconds is not None:
        side = "ahead" if agent.clock_off_seconds > 0 else "behind"
        return f"clock {abs(agent.clock_off_seconds):.0f} s {side}"
    if agent.tripped_until is not None:
        return _because(f"failing; none until {agent.tripped_until.astimezone():%H:%M:%S}", agent.trip_reason)
    return None


def _because(text: str, note: str | None) -> str:
    return f"{text}: {note}" if note else text


def event_line(event: Event) -> str:
    """Return an event as one line that people can read."""
    about = f"task={event.task_id}" if event.task_id else f"agent={event.agent_id}"
    data = " ".join(f"{name}={quoted(value)}" for name, value in event.data.items() if value is not None)
    return f"{clock(event.at)}  {event.seq:>6}  {event.kind:<20} {about}  {data}".rstrip()


def audit_line(event: AuditEvent) -> str:
    """Return an event of the audit log as one line: when, by whom, what."""
    about = [f"{name}={value}" for name, value in (("task", event.task_id), ("agent", event.agent_id)) if value]
    data = [f"{name}={quoted(value)}" for name, value in event.data.items() if value is not None]
    at = event.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{at}  {event.seq:>6}  {event.actor or '-'}  {event.kind}  {' '.join(about + data)}".rstrip()


def describe_end(task: TaskStatus) -> str:
    """Return the status with the reason, for example `failed (exit status 3)`."""
    if task.status is Status.COMPLETED or not task.is_final:
        return task.status
    reasons = [] if task.exit_code is None else [f"exit status {task.exit_code}"]
    if task.error_message:
        reasons.append(task.error_message if task.error_code is None else f"{task.error_message} [{task.error_code}]")
    return f"{task.status} ({'; '.join(reasons)})" if reasons else task.status


def clock(at: datetime) -> str:
    """Return the time of day here, to the millisecond."""
    return at.astimezone().strftime("%H:%M:%S.%f")[:-3]


def seconds(time: timedelta) -> str:
    return f"{time.total_seconds():.2f} s"


def _waited(task: TaskStatus) -> str | None:
    return None if task.started_at is None else seconds(task.started_at - task.created_at)
