"""Every check can fail: a repair that ended as promised is spoiled in one way, and that is what is found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.runs.checks import CHECKS, violations
from tests.chaos.runs.evidence import Carried, Container, Host, Made
from tests.chaos.runs.plan import ROLLBACK, STEPS, Change, Kill, Moment, Point, Repair, Victim

OLD, NEW = "sha256:old", "sha256:new"
KILL = Kill(Victim.AGENT, Point("restart", Moment.ENDED), 1.0)
DOCKERD = replace(KILL, victim=Victim.DOCKERD)
DB = Container("db-1", "shop_db_1", "sha256:base", "running", "12:00")
BEFORE = Host(
    files={"www/health": ("apples\n", 0o100644), "build.sh": ("true\n", 0o100644)},
    changed="",
    image=OLD,
    service=[Container("web-1", "shop_web_1", OLD, "running", "12:00")],
    others=[DB],
    answer="apples\n",
)
STATE = {"run_id": "run", "end": "rolled_back", "handed_over": True, "reports": [{"status": "succeeded"}]}


def rolled_back() -> Carried:
    """A repair whose agent was killed within the restart, and which was rolled back."""
    after = replace(BEFORE, service=[replace(BEFORE.service[0], id="web-2", started_at="12:01")])
    steps = {**dict.fromkeys(STEPS, "succeeded"), "restart": "failed", "verify": "pending", ROLLBACK: "succeeded"}
    return Carried(
        1,
        Repair(Change.GOOD, False, (KILL,)),
        "pears\n",
        "run",
        BEFORE,
        after,
        "rolled_back",
        steps,
        {"task": "failed"},
        STATE,
        9.0,
        [Made(KILL, "in restart (container)", 1.0)],
    )


def succeeded() -> Carried:
    """A repair that was verified in spite of the kill."""
    after = replace(
        BEFORE,
        files={**BEFORE.files, "www/health": ("pears\n", 0o100644)},
        changed=" M www/health\n",
        image=NEW,
        service=[Container("web-2", "shop_web_1", NEW, "running", "12:01")],
        answer="pears\n",
    )
    return replace(
        rolled_back(),
        after=after,
        status="succeeded",
        steps={**dict.fromkeys(STEPS, "succeeded"), ROLLBACK: "skipped"},
        tasks={"task": "completed"},
        state={**STATE, "end": "verified"},
    )


def failed() -> Carried:
    """A repair that failed before anything was touched."""
    return replace(
        rolled_back(),
        after=BEFORE,
        status="failed",
        steps={**dict.fromkeys(STEPS, "pending"), "analyze": "failed", ROLLBACK: "skipped"},
        state={**STATE, "end": "untouched"},
    )


def with_after(carried: Carried, **changes: Any) -> Carried:
    return replace(carried, after=replace(carried.after, **changes))


def with_state(carried: Carried, **changes: object) -> Carried:
    return replace(carried, state={**carried.state, **changes})


HALF_WRITTEN = {**BEFORE.files, "www/health": ("pears\n", 0o100644)}
OTHER_MODE = {**BEFORE.files, "build.sh": ("true\n", 0o100755)}
STOPPED = [replace(BEFORE.service[0], status="exited")]
TWO = [*BEFORE.service, replace(BEFORE.service[0], id="web-3", name="shop_web_2")]

# What is spoiled, and the check that finds it.
SPOILED: dict[str, tuple[Callable[[], Carried], str]] = {
    "a run that never ends": (lambda: replace(rolled_back(), status="running"), "unfinished"),
    "a task that never ends": (lambda: replace(rolled_back(), tasks={"task": "running"}), "unfinished"),
    "files of the patch after a rollback": (lambda: with_after(rolled_back(), files=HALF_WRITTEN), "between"),
    "other permissions after a rollback": (lambda: with_after(rolled_back(), files=OTHER_MODE), "between"),
    "something staged after a rollback": (lambda: with_after(rolled_back(), changed="M  www/health\n"), "between"),
    "the new image after a rollback": (lambda: with_after(rolled_back(), image=NEW), "between"),
    "a container of the new image after a rollback": (
        lambda: with_after(rolled_back(), service=[replace(BEFORE.service[0], image=NEW)]),
        "between",
    ),
    "a stopped service after a rollback": (lambda: with_after(rolled_back(), service=STOPPED), "between"),
    "two containers after a rollback": (lambda: with_after(rolled_back(), service=TWO), "between"),
    "no container after a rollback": (lambda: with_after(rolled_back(), service=[]), "between"),
    "no answer after a rollback": (lambda: with_after(rolled_back(), answer=None), "between"),
    "the old files after success": (lambda: with_after(succeeded(), files=BEFORE.files), "between"),
    "the old image after success": (
        lambda: with_after(succeeded(), image=OLD, service=BEFORE.service),
        "between",
    ),
    "the old answer after success": (lambda: with_after(succeeded(), answer="apples\n"), "between"),
    "a broken change that was verified": (
        lambda: replace(succeeded(), repair=Repair(Change.BREAKS_HEALTH, False, (KILL,))),
        "verified what does not work",
    ),
    "a restart of what nobody touched": (
        lambda: with_after(failed(), service=[replace(BEFORE.service[0], started_at="12:01")]),
        "touched without a restart",
    ),
    "a restart of another service": (
        lambda: with_after(rolled_back(), others=[replace(DB, started_at="12:01")]),
        "touched others",
    ),
    "another service that is gone": (lambda: with_after(rolled_back(), others=[]), "touched others"),
    "a worktree": (lambda: with_after(rolled_back(), left=["/state/shop.web.worktree"]), "left behind"),
    "a draft of a file": (lambda: with_after(rolled_back(), left=["/srv/.health.chiffon-new"]), "left behind"),
    "a container of a build": (lambda: with_after(rolled_back(), strangers=["happy_newton"]), "left behind"),
    "a process": (lambda: replace(rolled_back(), processes=["17 docker-compose up"]), "left behind"),
    "a lock": (lambda: replace(rolled_back(), is_held=True), "left behind"),
    "a state without an end": (lambda: with_state(rolled_back(), end=None), "unsettled"),
    "a state that was not handed over": (lambda: with_state(rolled_back(), handed_over=False), "unsettled"),
    "a step in progress": (
        lambda: with_state(rolled_back(), reports=[{"status": "in_progress"}]),
        "unsettled",
    ),
    "an end that was not reported": (lambda: replace(rolled_back(), unsent=1), "unsettled"),
    "a host that says it is verified": (
        lambda: with_state(rolled_back(), end="verified"),
        "ledger and host differ",
    ),
    "a host that took it back in part": (
        lambda: with_state(rolled_back(), end="rolled_back_in_part"),
        "ledger and host differ",
    ),
    "a failure that was rolled back": (lambda: with_state(failed(), end="rolled_back"), "ledger and host differ"),
    "a host that knows nothing of it": (lambda: with_state(succeeded(), run_id="other"), "ledger and host differ"),
    "a rollback that did not succeed": (
        lambda: replace(rolled_back(), steps={**rolled_back().steps, ROLLBACK: "failed"}),
        "ledger and host differ",
    ),
    "a verification that did not succeed": (
        lambda: replace(succeeded(), steps={**succeeded().steps, "verify": "failed"}),
        "ledger and host differ",
    ),
    "a failure after the restart": (
        lambda: replace(failed(), steps={**failed().steps, "restart": "succeeded"}),
        "ledger and host differ",
    ),
    "an error that nobody thought of": (
        lambda: replace(rolled_back(), errors=["agent.1.log: repair.failed"]),
        "unexpected errors",
    ),
}


@pytest.mark.parametrize("carried", [rolled_back(), succeeded(), failed()], ids=lambda one: one.status)
def test_a_repair_that_ended_as_promised_has_no_violations(carried: Carried) -> None:
    assert violations(carried) == []


@pytest.mark.parametrize(("spoil", "check"), SPOILED.values(), ids=list(SPOILED))
def test_a_spoiled_end_is_found_out(spoil: Callable[[], Carried], check: str) -> None:
    assert check in {violation.promise for violation in violations(spoil())}


def test_every_check_is_seen_to_fail() -> None:
    assert {check for _, check in SPOILED.values()} == set(CHECKS)


def test_what_docker_itself_leaves_when_it_is_killed_is_no_fault_of_a_repair() -> None:
    carried = with_after(rolled_back(), strangers=["happy_newton"])

    assert violations(replace(carried, kills=[Made(DOCKERD, "in build (building)", 1.0)])) == []


def test_what_was_prepared_and_never_deployed_may_wait_for_the_next_repair() -> None:
    carried = with_state(with_after(failed(), left=["/state/shop.web.worktree"]), end="prepared", handed_over=False)

    assert violations(carried) == []
