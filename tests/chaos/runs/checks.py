"""The promises about repairs, each as a function from the evidence to its violations."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from tests.chaos.evidence import Violation
from tests.chaos.runs.evidence import Carried, Host
from tests.chaos.runs.plan import ROLLBACK, Change, Victim

SHOWN_FILE = "www/health"
# How the host says that a repair has ended, by what the ledger says.
ENDS: Mapping[str, tuple[str, ...]] = {
    "succeeded": ("verified",),
    "rolled_back": ("rolled_back",),
    "failed": ("untouched",),
}

Check = Callable[[Carried], Iterator[str]]


def unfinished(carried: Carried) -> Iterator[str]:
    """In the end a repair is verified, rolled back, or failed before anything was touched, and so are its tasks."""
    if carried.status not in ENDS:
        yield f"the run is still {carried.status}"
    for task_id, status in carried.tasks.items():
        if status not in ("completed", "failed", "cancelled"):
            yield f"the task {task_id} is still {status}"


def between(carried: Carried) -> Iterator[str]:
    """The service is wholly as before, or wholly as the patch makes it."""
    before, after = carried.before, carried.after
    wanted = before if carried.status != "succeeded" else _changed(carried)
    if after.files != wanted.files:
        names = sorted(
            name for name in {*after.files, *wanted.files} if after.files.get(name) != wanted.files.get(name)
        )
        yield f"after {carried.status} these files are not as they should be: {', '.join(names)}"
    if carried.status != "succeeded":
        if after.changed != before.changed:
            yield f"after {carried.status} git shows {after.changed!r}, before {before.changed!r}"
        if after.image != before.image:
            yield f"after {carried.status} the image is {after.image}, before {before.image}"
    elif after.image == before.image:
        yield "after succeeded the image is the one from before"
    if [(one.image, one.status) for one in after.service] != [(after.image, "running")]:
        yield f"the service does not run its image {after.image} once: {after.service}"
    if after.answer != wanted.answer:
        yield f"after {carried.status} the service answers {after.answer!r}, and should {wanted.answer!r}"


def verified_what_does_not_work(carried: Carried) -> Iterator[str]:
    """Only a change that works is verified."""
    if carried.status == "succeeded" and carried.repair.change is not Change.GOOD:
        yield f"a change that {carried.repair.change} was verified"


def touched_without_a_restart(carried: Carried) -> Iterator[str]:
    """A container that no step restarted is the same, and was not started again."""
    was_restarted = carried.steps.get("restart", "pending") not in ("pending", "skipped")
    before, after = list(carried.before.service), list(carried.after.service)
    if not was_restarted and before != after:
        yield f"nothing was to be restarted, and the service went from {before} to {after}"


def touched_others(carried: Carried) -> Iterator[str]:
    """Other containers of the project are the same, and were not started again."""
    if list(carried.after.others) != list(carried.before.others):
        yield f"other containers went from {carried.before.others} to {carried.after.others}"


def left_behind(carried: Carried) -> Iterator[str]:
    """No worktree, draft, lock, process or container is left."""
    prepared = carried.state.get("end") == "prepared"
    for one in carried.after.left:
        # What was prepared and never deployed stays until the next repair of the service.
        if not (prepared and one.endswith(".worktree")):
            yield f"left: {one}"
    for one in carried.processes:
        yield f"still runs: {one}"
    if carried.is_held:
        yield "somebody still holds the lock on the service"
    # A daemon that is killed in the middle of a build does not find that build's container again, and no label says
    # whose it is.
    is_of_docker = any(made.kill.victim is Victim.DOCKERD for made in carried.kills)
    for one in carried.after.strangers:
        if one not in carried.before.strangers and not is_of_docker:
            yield f"a container that is not of the project: {one}"


def unsettled(carried: Carried) -> Iterator[str]:
    """The state file says how the repair ended, and the orchestrator has that."""
    state = carried.state
    if not state:
        return
    if state["end"] is None:
        yield "the state file says no end"
    elif not state["handed_over"] and state["end"] != "prepared":
        yield f"the end {state['end']} was not handed over"
    if carried.unsent:
        yield f"{carried.unsent} ends wait to be reported"
    if any(one["status"] == "in_progress" for one in state["reports"]):
        yield f"the state file has a step in progress: {state['reports']}"


def ledger_and_host_differ(carried: Carried) -> Iterator[str]:
    """The ledger says the same as the host."""
    steps = carried.steps
    if carried.status in ENDS and carried.is_own_state:
        end = carried.state["end"]
        allowed = ENDS[carried.status]
        never_deployed = carried.status == "failed" and end == "prepared"
        if end not in allowed and not never_deployed:
            yield f"the run is {carried.status}, and the host says {end}"
    elif carried.status in ("succeeded", "rolled_back"):
        yield f"the run is {carried.status}, and the host has nothing of it"
    undone = {"succeeded": "skipped", "rolled_back": "succeeded", "failed": "skipped"}.get(carried.status)
    if undone is not None and steps.get(ROLLBACK) != undone:
        yield f"the run is {carried.status}, and its rollback {steps.get(ROLLBACK)}"
    if carried.status == "succeeded" and steps.get("verify") != "succeeded":
        yield f"the run is succeeded, and its verification {steps.get('verify')}"
    if carried.status == "failed" and steps.get("restart") not in ("pending", "skipped", "failed", None):
        yield f"the run is failed, and its restart {steps.get('restart')}"


def unexpected_errors(carried: Carried) -> Iterator[str]:
    """No log tells of something that no kill explains."""
    yield from carried.errors


CHECKS: Mapping[str, Check] = {
    check.__name__.replace("_", " "): check
    for check in (
        unfinished,
        between,
        verified_what_does_not_work,
        touched_without_a_restart,
        touched_others,
        left_behind,
        unsettled,
        ledger_and_host_differ,
        unexpected_errors,
    )
}


def violations(carried: Carried) -> list[Violation]:
    """Return everything that is not as promised."""
    return [Violation(name, text, carried.run_id) for name, check in CHECKS.items() for text in check(carried)]


def _changed(carried: Carried) -> Host:
    """Return how the host must stand once the patch is verified, as far as that is known beforehand."""
    before = carried.before
    mode = before.files[SHOWN_FILE][1]
    return replace(before, files={**before.files, SHOWN_FILE: (carried.wrote, mode)}, answer=carried.wrote)
