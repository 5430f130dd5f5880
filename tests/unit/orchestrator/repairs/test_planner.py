"""What a repair comes to."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from common.compose import ComposeRepairParameters, PatchSource
from common.errors import InvalidField
from common.plans.check import check
from common.plans.model import Plan
from common.plans.references import Scope, resolve
from common.policy.model import ApprovalDemand
from common.rest.repairs import RepairPriority, RepairStepName
from common.services import parse_services
from orchestrator.repairs.planner import (
    Ask,
    InvalidInstruction,
    ask_of,
    first_parameters,
    outdated,
    plan_of,
    resume,
    steps_for_people,
)
from orchestrator.repairs.profiles import Profile, Services

RUN_ID = "0b7a3f0e-6a53-4d0c-9a7b-3f4f8e5d1c2b"
TASK_ID = "c0ffee00-6a53-4d0c-9a7b-3f4f8e5d1c2b"
AGENT_ID = "a9e27000-6a53-4d0c-9a7b-3f4f8e5d1c2b"
SHA, SHOWN = "a" * 64, ["-print(1)", "+print(${inputs.two})"]
LABELS = {"required_capabilities": {"host": "shop-1"}}
HERE = {**LABELS, "agent_id": AGENT_ID}
DIFF = "--- a/web/app.py\n+++ b/web/app.py\n@@ -1 +1 @@\n-print(1)\n+print(2)\n"
COMMANDS = [["sed", "-i", "s/1/2/", "web/app.py"]]
GATE = '[service.web.approval]\nrequirement = "{}"\napprovers = 2\nroles = ["admin"]\nvalid_minutes = 30\n'


def profile(more: str = "", gate: str | None = None) -> Profile:
    table = f"""
        [service.web]
        service = "Web"
        project = "shop"
        workspace = "/srv/shop"
        compose_files = ["a.yml", "b.yml"]
        allowlist = ["web/**"]
        commands_allowed = [["sed"]]
        labels = {{ host = "shop-1" }}
        {more}
    """
    text = table if gate is None else table + "\n" + GATE.format(gate)
    return Services(parse_services(text, source="services.toml")).get("web")


def ask(instruction: str = "Repair it.", patch: PatchSource | None = None, **more: Any) -> Ask:
    patch = patch or PatchSource(diff=DIFF)
    return ask_of(instruction, patch, more.get("priority", RepairPriority.NORMAL), profile=profile())


def parameters_of(step: Mapping[str, Any], inputs: Mapping[str, Any]) -> ComposeRepairParameters:
    """Return the parameters of a step as its task gets them."""
    return ComposeRepairParameters.model_validate(resolve(dict(step), scope_of(inputs), "parameters"))


def scope_of(inputs: Mapping[str, Any]) -> Scope:
    known = {"task_id": TASK_ID, "agent_id": AGENT_ID, "result": {"diff_sha256": SHA, "diff": SHOWN}}
    return Scope(inputs, {"id": RUN_ID, "name": "x"}, lambda _: known)


def hints_of(hints: Mapping[str, Any]) -> Any:
    """Return the hints of a step as its task gets them."""
    return resolve(dict(hints), scope_of({}), "hints")


def test_without_a_question_in_between_one_task_does_it_all() -> None:
    plan = plan_of(profile(), ask())
    check(plan)

    (step,) = plan.steps
    given = parameters_of(step.parameters, plan.inputs)
    assert (step.name, step.work_type, step.priority, step.approval) == ("repair", "compose_repair", 3, None)
    assert step.hints == LABELS
    assert (step.idempotent, step.max_attempts, step.undo) == (False, None, None)
    assert given.steps == ["analyze", "patch", "build", "restart", "verify"]
    assert (str(given.run_id), given.service, given.instruction) == (RUN_ID, "Web", "Repair it.")
    assert given.profile == profile().service.profile
    assert given.patch == PatchSource(diff=DIFF)
    assert (given.resumes, given.diff_sha256) == (None, None)


def test_before_a_run_people_are_asked_about_the_whole() -> None:
    plan = plan_of(profile(gate="pre-run"), ask())
    check(plan)

    (step,) = plan.steps
    assert step.approval == ApprovalDemand(approvers=2, roles=("admin",), valid_minutes=30)


def test_a_gate_that_asks_nobody_asks_nobody() -> None:
    assert plan_of(profile(gate="none"), ask()).steps[0].approval is None


def test_between_build_and_restart_people_are_asked_about_the_diff_that_came_out() -> None:
    plan = plan_of(profile(gate="pre-verify"), ask(patch=PatchSource(commands=COMMANDS)))
    check(plan)

    prepare, deploy = plan.steps
    before, after = (parameters_of(step.parameters, plan.inputs) for step in plan.steps)
    assert (prepare.name, prepare.approval, before.steps) == ("prepare", None, ["analyze", "patch", "build"])
    assert before.patch == PatchSource(commands=COMMANDS)
    assert (deploy.name, after.steps, after.patch) == ("deploy", ["restart", "verify"], None)
    assert (str(after.resumes), after.diff_sha256, after.diff) == (TASK_ID, SHA, SHOWN)
    assert (before.diff_sha256, before.diff) == (None, None)
    assert deploy.approval == ApprovalDemand(approvers=2, roles=("admin",), valid_minutes=30)
    assert (prepare.hints, hints_of(deploy.hints)) == (LABELS, HERE)


@pytest.mark.parametrize(("priority", "number"), [(RepairPriority.NORMAL, 3), (RepairPriority.HIGH, 4)])
def test_what_is_urgent_has_a_higher_priority(priority: RepairPriority, number: int) -> None:
    assert plan_of(profile(), ask(priority=priority)).steps[0].priority == number


def test_the_pool_is_that_of_the_service() -> None:
    hints = plan_of(profile('agent_type = "desktop"'), ask()).steps[0].hints

    assert hints == {"required_capabilities": {"host": "shop-1"}, "agent_type": "desktop"}


def test_what_a_request_says_is_never_read_as_a_reference() -> None:
    text = "Set ${HOME} and $${PATH} and ${steps.repair.result}."
    commands = [["sed", "-i", "s/${inputs.profile}/$${x}/", "web/app.py"]]

    plan = plan_of(profile(), ask(text, PatchSource(commands=commands)))
    check(plan)

    given = parameters_of(plan.steps[0].parameters, plan.inputs)
    assert given.instruction == text
    assert given.patch == PatchSource(commands=commands)


def test_the_same_request_is_the_same_plan() -> None:
    assert plan_of(profile(), ask()) == plan_of(profile(), ask())


def test_an_instruction_may_hold_the_diff() -> None:
    instruction = f"Print two.\n\n```diff\n{DIFF}```\n\nAnd then:\n```diff\n{DIFF}```"

    asked = ask_of(f"  {instruction} \n", None, RepairPriority.NORMAL, profile=profile())

    assert asked.patch == PatchSource(diff=DIFF + DIFF)
    assert asked.instruction == instruction


def test_blocks_of_another_kind_are_text() -> None:
    asked = ask("```\n--- a\n```\n```python\nx = 1\n```\nand `` ```diff `` in a line")

    assert asked.patch == PatchSource(diff=DIFF)


def test_without_a_patch_the_commands_of_the_service_change_it() -> None:
    own = profile('commands = [["sed", "-i", "s/a/b/", "web/x"]]')

    assert ask_of("Do it.", None, RepairPriority.NORMAL, profile=own).patch == PatchSource(
        commands=[["sed", "-i", "s/a/b/", "web/x"]]
    )
    assert ask_of("Do it.", PatchSource(diff=DIFF), RepairPriority.NORMAL, profile=own).patch == PatchSource(diff=DIFF)


@pytest.mark.parametrize("instruction", ["", " \n\t "])
def test_an_instruction_must_say_something(instruction: str) -> None:
    with pytest.raises(InvalidInstruction, match="it is empty"):
        ask(instruction)


def test_something_must_say_what_changes() -> None:
    with pytest.raises(InvalidInstruction, match=r"Nothing says how the files of 'web' change") as caught:
        ask_of("Repair it.", None, RepairPriority.NORMAL, profile=profile())

    said = str(caught.value)
    assert all(way in said for way in ("`patch.diff`", "--patch FILE", "`patch.commands`", "```diff", "services file"))
    assert "commands that begin with one of these: sed; and changes of: web/**" in said


@pytest.mark.parametrize(
    ("instruction", "patch", "field", "problem"),
    [
        (f"x\n```diff\n{DIFF}", None, "instruction", "without a line ``` behind it"),
        ("x\n```diff\n```", None, "instruction", "no diff behind it"),
        (f"```diff\n{'+' * 300_000}\n```", None, "instruction", "at most 262144 characters of diff"),
        (f"```diff\n{DIFF}```", PatchSource(diff=DIFF), "patch", "give one of them"),
        ("x", PatchSource(commands=[["sed", "x"], ["rm", "-r", "/"]]), "patch.commands", "command 2 begins with 'rm'"),
        ("x", PatchSource(commands=[["sedx"]]), "patch.commands", "allowed: sed"),
    ],
)
def test_a_patch_that_is_none_is_refused(instruction: str, patch: PatchSource | None, field: str, problem: str) -> None:
    with pytest.raises(InvalidField) as caught:
        ask_of(instruction, patch, RepairPriority.NORMAL, profile=profile())

    assert caught.value.field == field
    assert problem in caught.value.problem


def test_what_no_host_would_take_is_refused() -> None:
    with pytest.raises(InvalidField, match="must have at most 520192 bytes of JSON") as caught:
        plan_of(profile(), ask("é" * 100_000, PatchSource(diff="é" * 200_000)))

    assert caught.value.field == "instruction"


def test_what_leaves_no_room_for_the_diff_that_people_are_shown_is_refused() -> None:
    large = ask("é" * 100_000, PatchSource(commands=[["sed", "é" * 140_000]]))
    plan_of(profile(), large)
    plan_of(profile(gate="pre-verify"), large)
    instruction = ask("\u0001" * 80_000)

    plan_of(profile(gate="pre-run"), instruction)
    with pytest.raises(InvalidField, match="must have at most 471040 bytes of JSON"):
        plan_of(profile(gate="pre-verify"), instruction)


@pytest.mark.parametrize(
    ("first", "steps", "patches"),
    [
        ("analyze", ["analyze", "patch", "build", "restart", "verify"], True),
        ("patch", ["patch", "build", "restart", "verify"], True),
        ("build", ["build", "restart", "verify"], False),
        ("restart", ["restart", "verify"], False),
        ("verify", ["verify"], False),
    ],
)
def test_one_task_goes_on_from_a_step(first: str, steps: list[str], patches: bool) -> None:
    plan = plan_of(profile(gate="pre-run"), ask())

    goes_on = resume(plan, RepairStepName(first), of=UUID(TASK_ID), at=UUID(AGENT_ID))

    (changed,) = goes_on.changes.values()
    given = parameters_of(changed["parameters"], plan.inputs)
    assert (goes_on.from_step, list(goes_on.changes)) == ("repair", ["repair"])
    assert given.steps == steps
    assert (given.patch is not None, given.resumes is None) == (patches, patches)
    assert given.diff_sha256 is None
    assert changed["hints"] == (LABELS if patches else HERE)
    assert given.profile == profile().service.profile


@pytest.mark.parametrize(
    ("first", "from_step", "steps", "where"),
    [
        ("analyze", "prepare", {"prepare": ["analyze", "patch", "build"], "deploy": ["restart", "verify"]}, LABELS),
        ("patch", "prepare", {"prepare": ["patch", "build"], "deploy": ["restart", "verify"]}, LABELS),
        ("build", "prepare", {"prepare": ["build"], "deploy": ["restart", "verify"]}, HERE),
        ("restart", "deploy", {"deploy": ["restart", "verify"]}, HERE),
        ("verify", "deploy", {"deploy": ["verify"]}, HERE),
    ],
)
def test_of_two_tasks_one_or_both_go_on(
    first: str, from_step: str, steps: dict[str, list[str]], where: dict[str, Any]
) -> None:
    plan = plan_of(profile(gate="pre-verify"), ask())

    goes_on = resume(plan, RepairStepName(first), of=UUID(TASK_ID), at=UUID(AGENT_ID))

    changes = goes_on.changes
    given = {name: parameters_of(changed["parameters"], plan.inputs) for name, changed in changes.items()}
    assert goes_on.from_step == from_step
    assert {name: one.steps for name, one in given.items()} == steps
    assert (str(given["deploy"].resumes), given["deploy"].diff_sha256, given["deploy"].diff) == (TASK_ID, SHA, SHOWN)
    assert (hints_of(changes[from_step]["hints"]), hints_of(changes["deploy"]["hints"])) == (where, HERE)


def test_what_is_patched_anew_may_go_to_any_host_again() -> None:
    plan = plan_of(profile(), ask())
    (repair,) = plan.steps
    pinned = plan.model_copy(update={"steps": [repair.model_copy(update={"hints": HERE})]})

    goes_on = resume(pinned, RepairStepName.PATCH, of=UUID(TASK_ID), at=UUID(AGENT_ID))

    assert goes_on.changes["repair"]["hints"] == LABELS


def test_the_first_task_needs_nothing_but_what_the_request_says() -> None:
    for gate in ("none", "pre-verify"):
        given = first_parameters(plan_of(profile(gate=gate), ask()), UUID(RUN_ID))

        assert str(ComposeRepairParameters.model_validate(given).run_id) == RUN_ID


def test_people_see_six_steps_by_the_names_of_the_contract() -> None:
    probe = 'healthcheck = { url = "http://127.0.0.1/", timeout_seconds = 30 }'

    steps = steps_for_people(profile(probe), ask(patch=PatchSource(commands=COMMANDS)))

    compose = ["docker", "compose", "--project-name", "shop", "-f", "/srv/shop/a.yml", "-f", "/srv/shop/b.yml"]
    assert steps == [
        {
            "name": "analyze",
            "parameters": {
                "instruction": "Repair it.",
                "service": "Web",
                "workspace": "/srv/shop",
                "notes": "Commands change the files.",
                "logArtifact": "analyze.log",
            },
        },
        {
            "name": "patch",
            "parameters": {
                "service": "Web",
                "workspace": "/srv/shop",
                "allowlist": ["web/**"],
                "diffArtifact": "patch.diff",
                "commands": COMMANDS,
            },
        },
        {
            "name": "build",
            "parameters": {
                "service": "Web",
                "composeProject": "shop",
                "logArtifact": "build.log",
                "command": [*compose, "build", "Web"],
            },
        },
        {
            "name": "restart",
            "parameters": {
                "service": "Web",
                "composeProject": "shop",
                "logArtifact": "restart.log",
                "command": [*compose, "up", "-d", "--no-deps", "Web"],
                "restartTimeoutSeconds": 60.0,
            },
        },
        {
            "name": "verify",
            "parameters": {
                "service": "Web",
                "logArtifact": "verify.log",
                "healthcheck": {
                    "url": "http://127.0.0.1/",
                    "method": "GET",
                    "timeoutSeconds": 30.0,
                    "intervalSeconds": 5.0,
                    "expectedStatus": 200,
                },
            },
        },
        {
            "name": "rollback",
            "parameters": {
                "service": "Web",
                "logArtifact": "rollback.log",
                "strategies": [{"type": "image swap", "commands": [[*compose, "up", "-d", "--no-deps", "Web"]]}],
            },
        },
    ]


def test_people_are_told_when_only_the_container_is_looked_at() -> None:
    analyze, *_ = steps_for_people(profile('compose_command = ["docker-compose"]'), ask())

    assert analyze["parameters"]["notes"] == (
        "A unified diff is applied. Only the state of the container is verified: the service has no probe."
    )


def outdated_today(then: Profile, today: Mapping[str, Profile]) -> str | None:
    """Say what a retry is told of a repair that was planned then, as the ledger holds it."""
    plan = Plan.model_validate(plan_of(then, ask()).model_dump(mode="json", exclude_defaults=True))
    services = Services({name: one.service for name, one in today.items()})
    return outdated(services, {"service": "web", "gate": then.service.requirement.value}, plan)


@pytest.mark.parametrize("gate", [None, "pre-run", "pre-verify"])
@pytest.mark.parametrize("more", ["", "commands = [['sed', '-i', 's/1/2/', 'web/app.py']]"])
def test_a_repair_is_tried_again_while_its_host_may_do_the_same_and_the_same_people_are_asked(
    gate: str | None, more: str
) -> None:
    assert outdated_today(profile(gate=gate), {"web": profile(more, gate)}) is None


@pytest.mark.parametrize(
    ("then", "more", "today"),
    [
        (None, "restart_timeout_seconds = 7", None),
        ("pre-verify", "restart_timeout_seconds = 7", "pre-verify"),
        (None, "", "pre-run"),
        (None, "", "pre-verify"),
        ("pre-run", "", None),
        ("pre-run", "", "pre-verify"),
        ("pre-verify", "", "pre-run"),
    ],
)
def test_a_repair_is_not_tried_again_once_its_service_is_described_otherwise(
    then: str | None, more: str, today: str | None
) -> None:
    said = outdated_today(profile(gate=then), {"web": profile(more, today)})

    assert said == "the description of the service 'web' has changed since it was started: start another run"


def test_a_repair_of_a_service_that_is_gone_is_not_tried_again() -> None:
    said = outdated_today(profile(), {"db": profile()})

    assert said == "target_service 'web' is not known. Allowed: db."


def test_a_gate_that_asks_fewer_people_is_another_gate() -> None:
    then = profile(gate="pre-run")
    gate = then.service.approval
    assert gate is not None
    fewer = then.service.model_copy(update={"approval": gate.model_copy(update={"approvers": 1})})

    said = outdated(Services({"web": fewer}), {"service": "web", "gate": "pre-run"}, plan_of(then, ask()))

    assert said is not None


def test_a_run_that_is_no_repair_is_never_outdated() -> None:
    assert outdated(Services(), {}, plan_of(profile(), ask())) is None
