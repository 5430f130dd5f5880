"""Work that only a repair consists of: no caller has it done in another way."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import pytest

from common.compose import COMPOSE_REPAIR
from common.errors import InvalidField
from common.plans.model import Plan
from common.policy.model import Refused, Work
from common.rest.runs import StepKind
from common.work import DEFAULT_ROUTES
from orchestrator.identities.model import ANYBODY
from orchestrator.jobs.rules import new_job
from orchestrator.policy.service import RefusedByPolicy, check_planned, open_policy
from orchestrator.runs.dispatching import Origin, check_dispatch, task_for
from orchestrator.runs.model import NewLink, NewRun
from orchestrator.tasks.model import NewTask
from tests.factories import make_new_task

REFUSAL = (
    "'compose_repair' is only dispatched by a repair of a service in the services file: "
    "start one with POST /orchestrator/runs or `chiffon runs repair`, which take the service, an instruction, and a "
    "diff or commands as the patch"
)
PARAMETERS: dict[str, Any] = {
    "run_id": str(uuid4()),
    "service": "web",
    "profile": {"project": "shop", "workspace": "/srv/shop", "allowlist": ["**"]},
    "patch": {"commands": [["rm", "-r", "etc"]]},
    "steps": ["analyze", "patch"],
}
ECHO = {"name": "first", "work_type": "echo"}
REPAIR = {"work_type": COMPOSE_REPAIR, "parameters": PARAMETERS}
LATER = {"work_type": COMPOSE_REPAIR, "parameters": {**PARAMETERS, "run_id": "${run.id}"}}
POLICY = open_policy(None)


def make(task_id: Any, work_type: str, parameters: Mapping[str, Any], _priority: int, **options: Any) -> NewTask:
    """Make a task with the ruling of the policy, as `OrchestratorService.task_of` does."""
    is_repair = options.pop("is_repair")
    ruling = POLICY.rule(Work(work_type, "infra", parameters), is_repair=is_repair)
    options["max_attempts"] = options["max_attempts"] or 1
    return make_new_task(task_id=task_id, work_type=work_type, parameters=parameters, ruling=ruling, **options)


def make_run(*steps: Mapping[str, Any], **about: Any) -> NewRun:
    plan = Plan.model_validate({"steps": list(steps)})
    return NewRun(uuid4(), uuid4(), uuid4(), "any", plan, {}, ANYBODY, key="service:web", about=about)


def test_the_policy_is_not_even_asked_about_it() -> None:
    with pytest.raises(InvalidField) as caught:
        POLICY.rule(Work(COMPOSE_REPAIR, "infra", PARAMETERS))

    assert (caught.value.field, caught.value.problem) == ("work_type", REFUSAL)


def test_of_a_repair_the_policy_decides() -> None:
    forbids = open_policy(None)
    forbids.policy = forbids.policy.model_copy(update={"rule": forbids.policy.rule[:1]})

    assert POLICY.rule(Work(COMPOSE_REPAIR, "infra", PARAMETERS), is_repair=True).rule == "anything"
    with pytest.raises(RefusedByPolicy):
        forbids.rule(Work(COMPOSE_REPAIR, "infra", PARAMETERS), is_repair=True)


@pytest.mark.parametrize("work_type", ["echo", "shell_script", "compose_repairs"])
@pytest.mark.parametrize("is_repair", [True, False])
def test_other_work_is_anybodys(work_type: str, is_repair: bool) -> None:
    check_planned(work_type, is_repair=is_repair)


@pytest.mark.parametrize("payload", [PARAMETERS, {}])
def test_a_job_of_this_type_is_refused_by_its_own_name_of_the_field(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidField) as caught:
        new_job(
            uuid4(),
            COMPOSE_REPAIR,
            request_id=uuid4(),
            trace_id=uuid4(),
            payload=payload,
            precedence=0,
            affinity_key=None,
            max_attempts=1,
            routes=DEFAULT_ROUTES,
            rule=POLICY.rule,
        )

    assert (caught.value.field, caught.value.problem) == ("type", REFUSAL)


def test_the_other_fields_of_a_job_keep_their_names() -> None:
    def refuses(_: Work) -> Any:
        raise RefusedByPolicy(Refused("no", "1"))

    def job(rule: Callable[[Work], Any], **payload: Any) -> NewTask:
        return new_job(
            uuid4(),
            "echo",
            request_id=uuid4(),
            trace_id=uuid4(),
            payload=payload,
            precedence=0,
            affinity_key=None,
            max_attempts=1,
            routes=DEFAULT_ROUTES,
            rule=rule,
        )

    with pytest.raises(InvalidField, match=r"^payload\.message: "):
        job(POLICY.rule, message=1)
    with pytest.raises(RefusedByPolicy):
        job(refuses, message="x")


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ([{"name": "one", **REPAIR}], "steps[0].work_type"),
        ([ECHO, {"name": "two", **REPAIR}], "steps[1].work_type"),
        ([ECHO, {"name": "two", **LATER}], "steps[1].work_type"),
        ([ECHO, {"name": "two", "work_type": "echo", "undo": REPAIR}], "steps[1].undo.work_type"),
        ([ECHO, {"name": "two", "work_type": "echo", "undo": LATER}], "steps[1].undo.work_type"),
    ],
)
def test_a_plan_of_a_caller_has_no_such_step(steps: list[dict[str, Any]], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_dispatch(make_run(*steps), make, DEFAULT_ROUTES)

    assert (caught.value.field, caught.value.problem) == (field, REFUSAL)


@pytest.mark.parametrize("steps", [[{"name": "one", **REPAIR}], [{"name": "one", **LATER}]])
def test_a_plan_for_a_service_has_such_steps(steps: list[dict[str, Any]]) -> None:
    run = make_run(*steps, service="web")

    check_dispatch(run, make, DEFAULT_ROUTES)

    task = task_for(Origin.of(run), run.plan, NewLink("one", StepKind.STEP, 1, parameters=PARAMETERS), make)
    assert (task.work_type, task.parameters) == (COMPOSE_REPAIR, PARAMETERS)


def test_a_step_that_got_into_a_plan_of_a_caller_is_not_dispatched() -> None:
    run = make_run({"name": "one", **LATER})

    with pytest.raises(InvalidField, match=REFUSAL):
        task_for(Origin.of(run), run.plan, NewLink("one", StepKind.STEP, 1, parameters=PARAMETERS), make)
