"""The figures of a run: as JSON, as a table, and the whole story of a task whose promise was broken."""

import bisect
import json
import os
import platform
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from tests.chaos.evidence import Evidence, Violation
from tests.chaos.history import FaultRecord

STORIES = 5


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What has to be known to judge the figures."""

    seed: int
    seconds: float
    settle_seconds: float | None
    postgres: Mapping[str, str]
    rabbitmq: str
    swallowed_commits: int
    settings: Mapping[str, Any]


def figures(evidence: Evidence, found: Sequence[Violation], circumstances: Circumstances) -> dict[str, Any]:
    """Return everything worth knowing about a run."""
    history, ledger = evidence.history, evidence.ledger
    promises = Counter(violation.promise for violation in found)
    kinds = Counter(event["kind"] for event in ledger.events)
    dispatches = [call for call in history.calls if call.kind != "cancel"]
    asked = {task_id for call in dispatches for task_id in call.task_ids}
    unknown = asked - history.answered
    return {
        **asdict(circumstances),
        "cpus": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            "aio-pika": version("aio-pika"),
            "asyncpg": version("asyncpg"),
        },
        "calls": {
            kind: dict(Counter(call.outcome for call in history.calls if call.kind == kind))
            for kind in ("dispatch", "batch", "repeat", "cancel")
        },
        "tasks": {
            "tried": len(asked),
            "answered": len(history.answered),
            "unknown": len(unknown),
            "unknown_and_there": len(unknown & set(ledger.tasks)),
            "final": dict(Counter(task["status"] for task in ledger.tasks.values())),
            "started": len(evidence.runs),
            "attempts": len(ledger.attempts),
            "attempts_lost": sum(attempt["outcome"] == "lost" for attempt in ledger.attempts),
            "untouched_handed_back": sum(task["unstarted"] for task in ledger.tasks.values()),
        },
        "faults": dict(Counter(fault.kind for fault in history.faults)),
        "faults_that_failed": [asdict(fault) for fault in history.faults if fault.failure],
        "unwanted_ends": [asdict(end) for end in history.ends if not end.wanted],
        "lost": promises["lost"] + promises["unfinished"],
        "unexpected": promises["unexpected"],
        "run_twice": promises["run twice"],
        "doubly_accepted": promises["accepted twice"],
        "overlapping": promises["overlapping"],
        "illegal_transitions": promises["illegal transition"],
        "stale_refused": kinds["task.result_refused"],
        "poison": len(history.poison),
        "events": len(ledger.events),
        "violations": dict(promises),
        "recovery": recovery(history.faults, ledger.events),
        "notes": history.notes,
        "fault_list": [asdict(fault) for fault in history.faults],
    }


def recovery(faults: Sequence[FaultRecord], events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return, for each kind of fault, the seconds from its healing to the next completed task and to full service."""
    completed = [event["at"] for event in events if event["kind"] == "task.completed"]
    table: dict[str, Any] = {}
    for kind in sorted({fault.kind for fault in faults}):
        healed = [fault for fault in faults if fault.kind == kind and fault.healed is not None]
        next_task, service = [], []
        for fault in healed:
            assert fault.healed is not None
            position = bisect.bisect_right(completed, fault.healed)
            if position < len(completed):
                next_task.append(completed[position] - fault.healed)
            if fault.service is not None:
                service.append(fault.service - fault.healed)
        table[kind] = {"times": len(healed), "next_task": _spread(next_task), "full_service": _spread(service)}
    return table


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"median": round(statistics.median(ordered), 2), "p99": round(p99, 2), "max": round(ordered[-1], 2)}


def table(result: Mapping[str, Any]) -> str:
    """Return the figures for people."""
    tasks = result["tasks"]
    lines = [
        (
            f"seed {result['seed']}, {result['seconds']:.0f} s of load and faults, {result['cpus']} CPUs,"
            f" PostgreSQL {result['postgres'].get('server_version')} (fsync {result['postgres'].get('fsync')}),"
            f" RabbitMQ {result['rabbitmq']}"
        ),
        f"settled {_seconds(result['settle_seconds'])} after the last fault",
        (
            f"tasks: tried {tasks['tried']}, answered {tasks['answered']}, unknown {tasks['unknown']}"
            f" (of which there: {tasks['unknown_and_there']}), {tasks['final']}"
        ),
        (
            f"attempts {tasks['attempts']} (lost {tasks['attempts_lost']}), starts {tasks['started']},"
            f" events {result['events']}, commits whose answer was lost {result['swallowed_commits']}"
        ),
        "calls: " + "; ".join(f"{kind} {counts}" for kind, counts in result["calls"].items()),
        (
            f"lost {result['lost']}, unexpected {result['unexpected']}, run twice {result['run_twice']},"
            f" doubly accepted {result['doubly_accepted']}, overlapping {result['overlapping']},"
            f" stale refused {result['stale_refused']}, illegal transitions {result['illegal_transitions']}"
        ),
        "",
        f"{'fault':30} {'times':>5}   next completed task        full service",
        f"{'':30} {'':>5}   median    p99    max   median    p99    max",
    ]
    for kind, row in result["recovery"].items():
        lines.append(f"{kind:30} {row['times']:>5}  {_columns(row['next_task'])}  {_columns(row['full_service'])}")
    lines += [f"note: {note}" for note in result["notes"]]
    lines += [f"ended unasked: {end['name']} with {end['exit_code']}" for end in result["unwanted_ends"]]
    lines.append(f"violations: {result['violations'] or 'none'}")
    return "\n".join(lines)


def stories(evidence: Evidence, found: Sequence[Violation]) -> str:
    """Return each violation and, for the first few tasks concerned, everything that is known about them."""
    lines = [str(violation)[:2000] for violation in found]
    for task_id in list(dict.fromkeys(violation.task_id for violation in found if violation.task_id))[:STORIES]:
        lines += ["", f"--- {task_id}"]
        lines += [f"fault   {json.dumps(asdict(fault))}" for fault in evidence.history.faults]
        lines += [f"call    {json.dumps(call)[:600]}" for call in evidence.history.about(task_id)]
        lines += [f"event   {json.dumps(event)[:600]}" for event in evidence.ledger.history(task_id)]
        lines += [f"attempt {json.dumps(attempt)[:600]}" for attempt in evidence.ledger.attempts_of(task_id)]
        lines += [f"run     {run}" for run in evidence.runs if task_id in (run.task_id, run.work)]
    return "\n".join(lines)


def _columns(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return f"{'-':>7}{'-':>7}{'-':>7}"
    return "".join(f"{spread[name]:7.2f}" for name in ("median", "p99", "max"))


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
