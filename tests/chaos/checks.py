"""The promises, each as a function from the evidence to its violations."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations, pairwise

from common.lifecycle import FINAL, TRANSITIONS, Status
from tests.chaos.evidence import Evidence, Violation
from tests.chaos.journal import Run

MOVES = {(before, after) for (before, _), after in TRANSITIONS.items()}
LEADS_TO = {
    "task.dispatched": Status.PENDING,
    "task.claimed": Status.RUNNING,
    "task.requeued": Status.PENDING,
    "task.completed": Status.COMPLETED,
    "task.failed": Status.FAILED,
    "task.cancelled": Status.CANCELLED,
}
ENDS_AN_ATTEMPT = {"task.requeued", "task.completed", "task.failed", "task.cancelled"}
# How exact two stamps can be compared: a script stamps before it writes, and PostgreSQL before it commits.
STAMP_SECONDS = 0.05

Check = Callable[[Evidence], Iterator[Violation]]


def lost(evidence: Evidence) -> Iterator[Violation]:
    """I1: what was answered with success is there."""
    for task_id in sorted(evidence.history.answered - set(evidence.ledger.tasks)):
        yield Violation("lost", f"the dispatch of {task_id} was answered, but the ledger has no such task", task_id)


def unfinished(evidence: Evidence) -> Iterator[Violation]:
    """I1, I9: in the end everything is final."""
    for task_id, task in evidence.ledger.tasks.items():
        if Status(task["status"]) not in FINAL:
            yield Violation("unfinished", f"{task_id} is still {task['status']}", task_id)


def unexpected(evidence: Evidence) -> Iterator[Violation]:
    """I2, I3: there is and runs only what was dispatched, each piece of work under its one id."""
    for task_id in sorted(set(evidence.ledger.tasks) - set(evidence.history.submitted)):
        yield Violation("unexpected", f"nobody dispatched the task {task_id}", task_id)
    for run in evidence.runs:
        if run.task_id not in evidence.ledger.tasks:
            yield Violation("unexpected", f"{run} ran for a task that the ledger does not know", run.task_id)


def run_twice(evidence: Evidence) -> Iterator[Violation]:
    """I6: work starts at most as often as it may, and once when it is not idempotent."""
    for work, runs in evidence.runs_of.items():
        submitted = evidence.history.submitted.get(work)
        if submitted is not None and len(runs) > submitted.max_starts:
            text = f"{work} may start {submitted.max_starts} times and was started {len(runs)} times: {runs}"
            yield Violation("run twice", text, runs[0].task_id)


def started_once_an_attempt(evidence: Evidence) -> Iterator[Violation]:
    """I6: each attempt starts the work at most once, on the agent that holds it."""
    for (task_id, attempt), count in Counter((run.task_id, run.attempt) for run in evidence.runs).items():
        if count > 1:
            yield Violation("run twice", f"attempt {attempt} of {task_id} was started {count} times", task_id)


def overlapping(evidence: Evidence) -> Iterator[Violation]:
    """I4, I8: two processes of one piece of work never live at the same time."""
    for work, runs in evidence.runs_of.items():
        for one, other in combinations(runs, 2):
            if (seconds := one.overlaps(other)) > 0:
                text = f"two processes of {work} lived at once for {seconds:.2f} s: {one} and {other}"
                yield Violation("overlapping", text, one.task_id)


def accepted_twice(evidence: Evidence) -> Iterator[Violation]:
    """I5, I7: an attempt ends once, and so does a task."""
    for task_id, events in evidence.events_of.items():
        # A task that is cancelled while it waits has no open attempt, though the event may name the last one.
        ends = Counter(
            event["attempt"] for event in events if event["kind"] in ENDS_AN_ATTEMPT and not _was_waiting(event)
        )
        for attempt, count in ends.items():
            if count > 1:
                yield Violation("accepted twice", f"attempt {attempt} of {task_id} ended {count} times", task_id)
        finals = [event["kind"] for event in events if LEADS_TO.get(event["kind"]) in FINAL]
        if len(finals) > 1:
            yield Violation("accepted twice", f"{task_id} became final {len(finals)} times: {finals}", task_id)


def accepted_too_early(evidence: Evidence) -> Iterator[Violation]:
    """I5: an accepted result is that of the attempt's own process, which has ended by then."""
    runs = {(run.task_id, run.attempt): run for run in evidence.runs}
    for attempt in evidence.ledger.attempts:
        run = runs.get((attempt["task_id"], attempt["number"]))
        if run is None or attempt["outcome"] not in ("completed", "failed"):
            continue
        late = run.last - attempt["ended_at"]
        if late > STAMP_SECONDS:
            text = (
                f"the result of attempt {attempt['number']} was accepted {late:.2f} s before its process ended: {run}"
            )
            yield Violation("accepted too early", text, attempt["task_id"])


def completed_without_a_run(evidence: Evidence) -> Iterator[Violation]:
    """I2, I5: what is said to be completed did run to its end in the very attempt that says so."""
    ended = {(run.task_id, run.attempt) for run in evidence.runs if run.ending == "end"}
    for attempt in evidence.ledger.attempts:
        task_id = attempt["task_id"]
        submitted = evidence.history.submitted.get(task_id)
        if submitted is None or submitted.kind == "echo" or attempt["outcome"] != "completed":
            continue
        if (task_id, attempt["number"]) not in ended:
            text = f"attempt {attempt['number']} of {task_id} is completed, but its process did not come to its end"
            yield Violation("completed without a run", text, task_id)


def illegal_transitions(evidence: Evidence) -> Iterator[Violation]:
    """I7: the events of a task, one after another, are moves of the table, and lead to where its row stands."""
    for task_id, task in evidence.ledger.tasks.items():
        status: Status | None = None
        for event in evidence.events_of.get(task_id, []):
            after = LEADS_TO.get(event["kind"])
            if after is None:
                continue
            if (status is None) != (event["kind"] == "task.dispatched") or (
                status is not None and (status, after) not in MOVES
            ):
                yield Violation("illegal transition", f"{task_id} went from {status} to {after}", task_id)
            status = after
        if status != task["status"]:
            yield Violation("illegal transition", f"{task_id} is {task['status']}, its events say {status}", task_id)


def rows_and_events_differ(evidence: Evidence) -> Iterator[Violation]:
    """I4, I7: one claim event for each attempt, and numbers that only rise."""
    for task_id, task in evidence.ledger.tasks.items():
        attempts = evidence.attempts_of.get(task_id, [])
        claimed = [event["attempt"] for event in evidence.events_of.get(task_id, []) if event["kind"] == "task.claimed"]
        if claimed != [attempt["number"] for attempt in attempts] or len(attempts) != task["attempt"]:
            text = f"{task_id} has {task['attempt']} attempts, rows of {len(attempts)} and claims of {claimed}"
            yield Violation("rows and events differ", text, task_id)
        for one, other in pairwise(attempts):
            if one["number"] >= other["number"]:
                yield Violation("rows and events differ", f"the attempt of {task_id} did not rise", task_id)
            if one["ended_at"] is None or one["ended_at"] > other["started_at"]:
                text = f"attempt {other['number']} of {task_id} was leased while attempt {one['number']} was"
                yield Violation("rows and events differ", text, task_id)


def cancelled_then_claimed(evidence: Evidence) -> Iterator[Violation]:
    """I12: after a cancel is answered no lease is granted, and the task stays cancelled."""
    for task_id in evidence.history.cancelled:
        events = evidence.events_of.get(task_id, [])
        at = next((event["seq"] for event in events if event["kind"] == "task.cancelled"), None)
        if at is None:
            yield Violation("cancel lost", f"the cancel of {task_id} was answered and is not in the ledger", task_id)
        elif any(event["kind"] in LEADS_TO and event["seq"] > at for event in events):
            yield Violation("claimed after a cancel", f"{task_id} went on after it was cancelled", task_id)


def out_of_order(evidence: Evidence) -> Iterator[Violation]:
    """I11: tasks of one ordering key start one after another, in order of dispatch."""
    by_key: dict[str, list[str]] = {}
    for work, submitted in evidence.history.submitted.items():
        if submitted.ordering_key is not None and work in evidence.runs_of and work in evidence.ledger.tasks:
            by_key.setdefault(submitted.ordering_key, []).append(work)
    for key, works in by_key.items():
        ordered = sorted(works, key=lambda work: evidence.ledger.tasks[work]["dispatch_no"])
        for one, other in pairwise(ordered):
            last, first = max(run.last for run in evidence.runs_of[one]), evidence.runs_of[other][0].start
            if first < last:
                text = f"of {key}, {other} started {last - first:.2f} s before {one} had ended"
                yield Violation("out of order", text, other)


def too_many_at_once(evidence: Evidence) -> Iterator[Violation]:
    """Of the tasks with one concurrency key, never more run than its limit allows."""
    by_key: dict[tuple[str, int], list[Run]] = {}
    for work, submitted in evidence.history.submitted.items():
        if submitted.concurrency is not None:
            by_key.setdefault(submitted.concurrency, []).extend(evidence.runs_of.get(work, ()))
    for (key, limit), runs in by_key.items():
        for run in runs:
            beside = [other for other in runs if other.start <= run.start < other.last]
            if len(beside) > limit:
                text = f"{len(beside)} processes of {key} lived at once, {limit} may: {beside}"
                yield Violation("too many at once", text, run.task_id)


def poison_lost(evidence: Evidence) -> Iterator[Violation]:
    """I15: what nobody can read is a dead letter, once."""
    noted = Counter(evidence.ledger.dead_letters)
    for message_id in evidence.history.poison:
        if noted[message_id] != 1:
            yield Violation("poison lost", f"message {message_id} is {noted[message_id]} dead letters")


def event_gaps(evidence: Evidence) -> Iterator[Violation]:
    """I13: the numbers of events have no gap."""
    numbers = [event["seq"] for event in evidence.ledger.events]
    if numbers != list(range(1, len(numbers) + 1)):
        missing = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))[:10]
        yield Violation("event gap", f"{len(numbers)} events up to number {numbers[-1]}; missing: {missing}")


def chain_broken(evidence: Evidence) -> Iterator[Violation]:
    """I13: the audit log's chain verifies, whatever happened while it was written."""
    if evidence.ledger.flaw is not None:
        yield Violation("chain broken", evidence.ledger.flaw)


def followed_otherwise(evidence: Evidence) -> Iterator[Violation]:
    """I13: a reader that resumes saw every event exactly once, in order."""
    written = [(event["seq"], event["kind"], event["task_id"]) for event in evidence.ledger.events]
    if list(evidence.followed) != written:
        seen, known = Counter(evidence.followed), Counter(written)
        text = (
            f"the feed showed {len(evidence.followed)} of {len(written)} events;"
            f" missing {list(known - seen)[:3]}, too many {list(seen - known)[:3]}"
        )
        yield Violation("feed differs", text)


def output_lost(evidence: Evidence) -> Iterator[Violation]:
    """What an accepted result says was written is there, without a gap."""
    stored: Counter[tuple[str, int, str]] = Counter()
    for chunk in evidence.ledger.output:
        key = (chunk["task_id"], chunk["attempt"], chunk["stream"])
        if chunk["byte_offset"] == stored[key]:
            stored[key] += chunk["size"]
    for attempt in evidence.ledger.attempts:
        if attempt["outcome"] not in ("completed", "failed") or attempt["output_bytes"] is None:
            continue
        for stream, size in _sizes(attempt["output_bytes"]).items():
            if (have := stored[attempt["task_id"], attempt["number"], stream]) != size:
                where = f"attempt {attempt['number']} of {attempt['task_id']}"
                text = f"{where} wrote {size} bytes to {stream}, stored without a gap: {have}"
                yield Violation("output lost", text, attempt["task_id"])


def result_forgotten(evidence: Evidence) -> Iterator[Violation]:
    """What an agent has on its disk as the result reaches the ledger, which ends the attempt by it or refuses it."""
    outcomes = {(row["task_id"], row["number"]): row["outcome"] for row in evidence.ledger.attempts}
    refused = {
        (event["task_id"], event["attempt"])
        for event in evidence.ledger.events
        if event["kind"] == "task.result_refused"
    }
    noted: dict[tuple[str, int], set[str | None]] = {}
    for entry in evidence.witnesses:
        if entry.event == "ended":
            # An agent that comes back notes the end of an attempt again when it is not sure that it did.
            noted.setdefault((entry.task_id, entry.attempt), set()).add(entry.status)
    for key, statuses in noted.items():
        # A cancel ends the attempt before its agent does.
        if outcomes.get(key) not in (*statuses, "cancelled") and key not in refused:
            text = f"the result of {key} was {statuses} on an agent's disk, and the ledger says {outcomes.get(key)}"
            yield Violation("result forgotten", text, key[0])


def run_without_a_record(evidence: Evidence) -> Iterator[Violation]:
    """I6: an agent has written down that it starts an attempt before the attempt runs."""
    if not evidence.witnesses:
        return
    recorded = {(entry.task_id, entry.attempt) for entry in evidence.witnesses if entry.event == "started"}
    for run in evidence.runs:
        if (run.task_id, run.attempt) not in recorded:
            yield Violation("run without a record", f"no agent has written down that it started {run}", run.task_id)


def never_handed_over(evidence: Evidence) -> Iterator[Violation]:
    """I9: in the end no agent owes a result."""
    if evidence.unsent:
        yield Violation("never handed over", f"{evidence.unsent} results still lie on the disks of agents")


def crashed(evidence: Evidence) -> Iterator[Violation]:
    """No process dies of a signal that nobody sent, or of an error that no fault explains."""
    for end in evidence.history.ends:
        if not end.wanted and end.exit_code is not None and end.exit_code < 0:
            yield Violation("crashed", f"{end.name} died of signal {-end.exit_code}")
    for error in evidence.errors:
        yield Violation("unexpected error", error)


def secrets_leaked(evidence: Evidence) -> Iterator[Violation]:
    """I16: no secret in a log or an event."""
    for leak in evidence.leaks:
        yield Violation("secret leaked", leak)


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        lost,
        unfinished,
        unexpected,
        run_twice,
        started_once_an_attempt,
        overlapping,
        accepted_twice,
        accepted_too_early,
        completed_without_a_run,
        illegal_transitions,
        rows_and_events_differ,
        cancelled_then_claimed,
        out_of_order,
        too_many_at_once,
        poison_lost,
        event_gaps,
        chain_broken,
        followed_otherwise,
        output_lost,
        result_forgotten,
        run_without_a_record,
        never_handed_over,
        crashed,
        secrets_leaked,
    )
}


def violations(evidence: Evidence) -> list[Violation]:
    """Return everything that is not as promised."""
    return [violation for check in CHECKS.values() for violation in check(evidence)]


def _was_waiting(event: dict[str, object]) -> bool:
    data = event["data"]
    return isinstance(data, dict) and data.get("was") in ("pending", "awaiting_approval")


def _sizes(output_bytes: object) -> dict[str, int]:
    return output_bytes if isinstance(output_bytes, dict) else {}
