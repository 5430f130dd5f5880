"""Every check can fail: a history in which all is well is spoiled in one way, and that is what is found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.checks import violations
from tests.chaos.evidence import Evidence
from tests.chaos.history import Call, History, ProcessEnd, Submitted
from tests.chaos.journal import Run, parse
from tests.chaos.ledger import Ledger
from tests.chaos.witnesses import Entry

AGENT = "agent-1"


def make_evidence() -> Evidence:
    """Two tasks of one ordering key that ran one after the other, and one that was cancelled before it ran."""
    history = History()
    for work in ("one", "two", "cancelled"):
        body: dict[str, Any] = {"idempotent": False, "task_id": work}
        if work != "cancelled":
            body |= {"ordering_key": "key", "concurrency_key": "few", "concurrency_limit": 1}
        history.submitted[work] = Submitted(work, work, body, "shell_script")
        history.calls.append(Call("dispatch", "orchestrator-1", [work], 1.0, "ok", 1.1, accepted=[work]))
    history.calls.append(
        Call("cancel", "orchestrator-1", ["cancelled"], 2.0, "ok", 2.1, accepted=["cancelled"]),
    )
    runs = [Run("one", "one", 1, AGENT, 11, 10.0, 11.0, "end"), Run("two", "two", 1, AGENT, 12, 12.0, 13.0, "end")]
    moves = [
        ("one", "task.dispatched", None, {}),
        ("two", "task.dispatched", None, {}),
        ("cancelled", "task.dispatched", None, {}),
        ("cancelled", "task.cancelled", None, {"was": "pending"}),
        ("one", "task.claimed", 1, {}),
        ("one", "task.completed", 1, {}),
        ("two", "task.claimed", 1, {}),
        ("two", "task.completed", 1, {}),
    ]
    events: list[dict[str, Any]] = [
        {"seq": seq, "kind": kind, "task_id": task_id, "attempt": attempt, "at": float(seq), "data": data}
        for seq, (task_id, kind, attempt, data) in enumerate(moves, start=1)
    ]
    tasks: dict[str, dict[str, Any]] = {
        work: {"task_id": work, "status": status, "attempt": attempt, "dispatch_no": number, "unstarted": 0}
        for number, (work, status, attempt) in enumerate(
            [("one", "completed", 1), ("two", "completed", 1), ("cancelled", "cancelled", 0)]
        )
    }
    attempts: list[dict[str, Any]] = [
        {
            "task_id": run.task_id,
            "number": 1,
            "outcome": "completed",
            "started_at": run.start,
            "ended_at": run.last + 0.1,
            "output_bytes": {"stdout": 5, "stderr": 0},
        }
        for run in runs
    ]
    output = [
        {"task_id": run.task_id, "attempt": 1, "stream": "stdout", "byte_offset": offset, "size": size}
        for run in runs
        for offset, size in ((0, 3), (3, 2))
    ]
    witnesses = [
        Entry(AGENT, event, run.task_id, 1, None if event == "started" else "completed")
        for run in runs
        for event in ("started", "ended")
    ]
    followed = [(event["seq"], event["kind"], event["task_id"]) for event in events]
    history.poison.append("poison")
    ledger = Ledger(tasks, attempts, events, output, ["poison"])
    return Evidence(history, runs, ledger, followed, witnesses=witnesses)


def lose(evidence: Evidence) -> None:
    del evidence.ledger.tasks["one"]


def leave_unfinished(evidence: Evidence) -> None:
    evidence.ledger.tasks["two"]["status"] = "running"


def forget_who_asked(evidence: Evidence) -> None:
    del evidence.history.submitted["two"]


def run_again(evidence: Evidence) -> None:
    evidence.runs = [*evidence.runs, Run("two", "two", 2, AGENT, 13, 20.0, 21.0, "end")]


def overlap(evidence: Evidence) -> None:
    evidence.runs = [*evidence.runs, Run("two", "two", 1, "agent-2", 13, 12.5, 13.5, "end")]


def complete_again(evidence: Evidence) -> None:
    evidence.ledger.events.append({**evidence.ledger.events[-1], "seq": 9})


def accept_early(evidence: Evidence) -> None:
    evidence.ledger.attempts[1]["ended_at"] = 12.5


def never_reach_the_end(evidence: Evidence) -> None:
    evidence.runs = [evidence.runs[0], replace(evidence.runs[1], ending=None)]


def skip_the_claim(evidence: Evidence) -> None:
    evidence.ledger.events[6]["kind"] = "task.progress"


def repeat_an_attempt(evidence: Evidence) -> None:
    evidence.ledger.attempts.append({**evidence.ledger.attempts[1], "number": 1})


def claim_after_the_cancel(evidence: Evidence) -> None:
    evidence.ledger.events.append({**evidence.ledger.events[4], "seq": 9, "task_id": "cancelled"})


def forget_the_cancel(evidence: Evidence) -> None:
    evidence.ledger.events[3]["kind"] = "task.progress"


def swap_the_order(evidence: Evidence) -> None:
    evidence.ledger.tasks["one"]["dispatch_no"] = 5


def run_side_by_side(evidence: Evidence) -> None:
    evidence.runs = [evidence.runs[0], replace(evidence.runs[1], start=10.5)]


def lose_poison(evidence: Evidence) -> None:
    evidence.ledger.dead_letters.clear()


def lose_an_event(evidence: Evidence) -> None:
    del evidence.ledger.events[0]


def break_the_chain(evidence: Evidence) -> None:
    evidence.ledger = replace(evidence.ledger, flaw="edited at event 1")


def show_an_event_twice(evidence: Evidence) -> None:
    evidence.followed = [*evidence.followed, evidence.followed[-1]]


def lose_output(evidence: Evidence) -> None:
    del evidence.ledger.output[0]


def forget_a_result(evidence: Evidence) -> None:
    evidence.ledger.attempts[0]["outcome"] = "lost"


def start_without_a_record(evidence: Evidence) -> None:
    evidence.witnesses = [entry for entry in evidence.witnesses if entry.event != "started"]


def leak(evidence: Evidence) -> None:
    evidence.leaks = ["agent-1.log:1: secret"]


def owe_a_result(evidence: Evidence) -> None:
    evidence.unsent = 1


def crash(evidence: Evidence) -> None:
    evidence.history.ends.append(ProcessEnd("agent-1", 1.0, -6, wanted=False))


def fail_unexpectedly(evidence: Evidence) -> None:
    evidence.errors = ["agent-1.log: work.lost"]


SPOILED: dict[Callable[[Evidence], None], str] = {
    lose: "lost",
    leave_unfinished: "unfinished",
    forget_who_asked: "unexpected",
    run_again: "run twice",
    overlap: "overlapping",
    complete_again: "accepted twice",
    accept_early: "accepted too early",
    never_reach_the_end: "completed without a run",
    skip_the_claim: "illegal transition",
    repeat_an_attempt: "rows and events differ",
    claim_after_the_cancel: "claimed after a cancel",
    forget_the_cancel: "cancel lost",
    swap_the_order: "out of order",
    run_side_by_side: "too many at once",
    lose_poison: "poison lost",
    lose_an_event: "event gap",
    break_the_chain: "chain broken",
    show_an_event_twice: "feed differs",
    lose_output: "output lost",
    forget_a_result: "result forgotten",
    start_without_a_record: "run without a record",
    owe_a_result: "never handed over",
    crash: "crashed",
    fail_unexpectedly: "unexpected error",
    leak: "secret leaked",
}


def test_a_history_in_which_all_is_well_has_no_violations() -> None:
    assert violations(make_evidence()) == []


@pytest.mark.parametrize(("spoil", "promise"), SPOILED.items(), ids=lambda value: getattr(value, "__name__", None))
def test_a_spoiled_history_is_found_out(spoil: Callable[[Evidence], None], promise: str) -> None:
    evidence = make_evidence()
    spoil(evidence)

    assert promise in {violation.promise for violation in violations(evidence)}


def test_a_script_that_was_killed_lived_until_its_last_stamp() -> None:
    lines = ["start w t 1 a 9 100.0 1000.0", "alive w t 1 a 9 100.2 1000.2", "start w t 2 b 9 101.0 1001.0"]

    assert parse(lines) == [
        Run("w", "t", 1, "a", 9, 1000.0, 1000.2),
        Run("w", "t", 2, "b", 9, 1001.0, 1001.0),
    ]
