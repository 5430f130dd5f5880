"""The task that a step of a run is: its ids, its name, and whom it is approved by."""

from typing import Any
from uuid import uuid4

import pytest

from common.errors import InvalidField
from common.plans.model import Plan
from common.policy.model import ApprovalDemand
from common.rest.identities import Role
from common.rest.runs import StepKind
from orchestrator.identities.model import ANYBODY
from orchestrator.runs.dispatching import Origin, stricter, task_for, task_id_for
from orchestrator.runs.model import NewLink, NewRun, caller_from, stored_caller
from orchestrator.tasks.model import NewTask
from tests.factories import ANN, make_caller, make_new_task

PLAN = Plan.model_validate(
    {
        "steps": [
            {
                "name": "one",
                "work_type": "echo",
                "parameters": {"message": "${run.id}"},
                "undo": {"work_type": "echo", "parameters": {"message": "undone"}, "priority": 5},
                "expires_after_seconds": 60,
                "ordering_key": "o",
            }
        ]
    }
)


def make_run(**values: Any) -> NewRun:
    given: dict[str, Any] = {
        "run_id": uuid4(),
        "request_id": uuid4(),
        "trace_id": uuid4(),
        "name": "release",
        "plan": PLAN,
        "inputs": {},
        "requested_by": ANN,
    }
    return NewRun(**{**given, **values})


def make(task_id: Any, work_type: str, parameters: Any, priority: int, **options: Any) -> NewTask:
    """Make a task as `OrchestratorService.task_of` does, without asking anybody."""
    options["max_attempts"] = options["max_attempts"] or 1
    assert options.pop("is_repair") is False
    return make_new_task(task_id=task_id, work_type=work_type, parameters=parameters, priority=priority, **options)


def demand(**values: Any) -> ApprovalDemand:
    return ApprovalDemand(**{"roles": ("approver",), **values})


def test_a_row_is_the_same_task_whenever_it_is_dispatched() -> None:
    run = make_run()
    link = NewLink("one", StepKind.STEP, 2, parameters={"message": "x"})

    first, again = (task_for(Origin.of(run), PLAN, link, make) for _ in range(2))
    later = task_for(Origin.of(run), PLAN, NewLink("one", StepKind.STEP, 3), make)

    assert (first.task_id, first.request_id) == (again.task_id, again.request_id)
    assert first.task_id == task_id_for(run.run_id, "one", StepKind.STEP, 2)
    assert {later.task_id, later.request_id}.isdisjoint({first.task_id, first.request_id})


def test_a_task_has_the_name_and_the_label_of_its_run_and_the_values_of_its_row() -> None:
    run = make_run()
    task = task_for(Origin.of(run), PLAN, NewLink("one", StepKind.STEP, 1, parameters={"message": "x"}), make)
    undo = task_for(Origin.of(run), PLAN, NewLink("one", StepKind.UNDO, 1), make)
    nameless = task_for(Origin.of(make_run(name="")), PLAN, NewLink("one", StepKind.STEP, 1), make)

    assert (task.name, task.labels, task.trace_id) == ("release: one", {"run": "release"}, run.trace_id)
    assert (task.parameters, task.requested_by, task.ordering_key) == ({"message": "x"}, ANN, "o")
    assert (undo.name, undo.parameters, undo.priority) == ("release: undo one", {"message": "undone"}, 5)
    assert (undo.ordering_key, undo.expires_after) == (None, None)
    assert len(nameless.labels["run"]) == 36


def test_what_satisfies_both_demands_is_asked() -> None:
    policy = demand(approvers=1, roles=("approver", "admin"), request_minutes=30, valid_minutes=60)
    own = demand(approvers=2, roles=("admin",), request_minutes=60, valid_minutes=10)

    assert stricter(policy, own) == demand(approvers=2, roles=("admin",), request_minutes=30, valid_minutes=10)
    assert stricter(None, own) is own
    assert stricter(policy, None) is policy
    assert stricter(None, None) is None
    with pytest.raises(InvalidField, match="none of viewer counts for the policy, too"):
        stricter(policy, demand(roles=("viewer",)))


def test_a_demand_of_a_step_is_one_of_its_task_and_not_of_its_undo() -> None:
    step = PLAN.steps[0].model_copy(update={"approval": demand()})
    plan = PLAN.model_copy(update={"steps": [step]})
    origin = Origin.of(make_run())

    asked = task_for(origin, plan, NewLink("one", StepKind.STEP, 1), make)
    undo = task_for(origin, plan, NewLink("one", StepKind.UNDO, 1), make)

    assert (asked.ruling.approval, undo.ruling.approval) == (demand(), None)
    assert asked.status == "awaiting_approval"


@pytest.mark.parametrize(
    "caller", [ANN, ANYBODY, make_caller("bob", Role.ADMIN, Role.APPROVER)], ids=lambda one: one.name
)
def test_who_started_a_run_is_the_same_after_a_restart(caller: Any) -> None:
    assert caller_from(stored_caller(caller)) == caller


def test_the_same_content_has_the_same_digest_whatever_its_ids() -> None:
    assert make_run().digest == make_run(requested_by=ANYBODY).digest
    for other in ({"name": "x"}, {"inputs": {"a": 1}}, {"key": "k"}, {"about": {"service": "web"}}):
        assert make_run(**other).digest != make_run().digest
