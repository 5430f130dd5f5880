"""What a repair comes to: the plan that its host carries out, and the same as steps for people. Pure decisions.

What changes the files is, in this order: the `patch` of the request; the unified diffs in its instruction, each in a
block that begins with a line ```diff; the `commands` of the service. With none of these there is nothing to plan.

The texts of a request reach the host as inputs of the plan, whose values are never read as references.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from common.compose import COMPOSE_REPAIR, LONGEST_DIFF, MOST_SHOWN_BYTES, PatchSource
from common.errors import ErrorCode, Invalid, InvalidField
from common.json_rules import check_size
from common.plans.model import Plan, Step
from common.plans.references import Scope, resolve
from common.rest.repairs import RepairPriority, RepairStepName
from common.services import Requirement, Service
from common.work import MAX_PARAMETERS_BYTES
from orchestrator.repairs.gate import demand_at
from orchestrator.repairs.profiles import Profile, Services, UnknownService

# The only step of a plan whose host does it all, and the two of one where people agree in between.
REPAIR, PREPARE, DEPLOY = "repair", "prepare", "deploy"
PREPARED = f"${{steps.{PREPARE}.task_id}}"
PREPARED_BY = f"${{steps.{PREPARE}.agent_id}}"
BEFORE = (RepairStepName.ANALYZE, RepairStepName.PATCH, RepairStepName.BUILD)
AFTER = (RepairStepName.RESTART, RepairStepName.VERIFY)
ALL = (*BEFORE, *AFTER)
# What the parameters of a task have besides the inputs of its plan.
OTHER_PARAMETERS_BYTES = 4096
PRIORITIES: Mapping[RepairPriority, int] = {RepairPriority.NORMAL: 3, RepairPriority.HIGH: 4}

_BLOCK = re.compile(r"^```diff[ \t\r]*\n(.*?)^```[ \t\r]*$", re.DOTALL | re.MULTILINE)
_BEGIN = re.compile(r"^```diff[ \t\r]*$", re.MULTILINE)


class InvalidInstruction(Invalid, ValueError):
    """An instruction says nothing that a host could do."""

    code = ErrorCode.INVALID_REQUEST


@dataclass(frozen=True, slots=True)
class Resumption:
    """From which step of its plan a run goes on, and with which parameters and hints."""

    from_step: str
    changes: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Ask:
    """What somebody wants done to a service."""

    instruction: str
    patch: PatchSource
    priority: RepairPriority = RepairPriority.NORMAL


def ask_of(instruction: str, patch: PatchSource | None, priority: RepairPriority, *, profile: Profile) -> Ask:
    """Return what a request asks for. Raises `InvalidInstruction`, and `InvalidField` for a patch that is none."""
    text = instruction.strip()
    if not text:
        raise InvalidInstruction("instruction must say what is to be done: it is empty.")
    diff = _diff_in(text)
    if patch is not None and diff is not None:
        raise InvalidField("patch", "is not allowed with a diff in the instruction: give one of them")
    if diff is not None:
        patch = _checked(diff)
    elif patch is None and profile.service.commands is not None:
        patch = PatchSource(commands=profile.service.commands)
    if patch is None:
        raise InvalidInstruction(_nothing_changes(profile))
    try:
        profile.service.check_commands(patch.commands or ())
    except ValueError as problem:
        raise InvalidField("patch.commands", str(problem)) from None
    return Ask(text, patch, priority)


def _nothing_changes(profile: Profile) -> str:
    """Say what a request lacks that changes no file, and what it may bring."""
    service = profile.service
    allowed = "; ".join(map(" ".join, service.commands_allowed))
    commands = f"commands that begin with one of these: {allowed}" if allowed else "no commands"
    return (
        f"Nothing says how the files of {profile.name!r} change. Give `patch.diff` (`chiffon runs repair "
        "--patch FILE`), or `patch.commands` (a command after --), or in the instruction a diff in a block that begins "
        "with a line ```diff; or give the service `commands` in the services file. The service allows "
        f"{commands}; and changes of: {', '.join(service.allowlist)}."
    )


def plan_of(profile: Profile, ask: Ask) -> Plan:
    """Return the plan; raises `InvalidField` when it is too large to be sent to a host."""
    service = profile.service
    inputs: dict[str, Any] = {
        "service": profile.compose_service,
        "profile": _profile(service),
        "instruction": ask.instruction,
        "patch": ask.patch.model_dump(mode="json", exclude_none=True),
    }
    most = MAX_PARAMETERS_BYTES - OTHER_PARAMETERS_BYTES
    try:
        check_size(inputs, most)
        if service.requirement is Requirement.PRE_VERIFY:  # what people agree to has the diff in place of the patch
            check_size({**inputs, "patch": None}, most - MOST_SHOWN_BYTES)
    except ValueError as problem:
        raise InvalidField("instruction", f"{problem}, the patch and the profile of the service included") from None
    common: dict[str, Any] = {
        "work_type": COMPOSE_REPAIR,
        "priority": PRIORITIES[ask.priority],
    }
    hints = _hints(profile)
    if service.requirement is not Requirement.PRE_VERIFY:
        approval = demand_at(service, Requirement.PRE_RUN)
        steps = [Step(name=REPAIR, parameters=_parameters(ALL), hints=hints, approval=approval, **common)]
    else:
        approval = demand_at(service, Requirement.PRE_VERIFY)
        steps = [
            Step(name=PREPARE, parameters=_parameters(BEFORE), hints=hints, **common),
            Step(name=DEPLOY, **_deploy(AFTER, PREPARED, hints, PREPARED_BY), approval=approval, **common),
        ]
    return Plan(name=f"repair {profile.name}", inputs=inputs, steps=steps)


def steps_for_people(profile: Profile, ask: Ask) -> list[dict[str, Any]]:
    """Return the six steps as the contract shows a plan, each with its parameters by the names of the contract."""
    service, name = profile.service, profile.compose_service
    compose = _compose(profile)
    up = [*compose, "up", "-d", "--no-deps", name]
    probe = service.healthcheck
    described: dict[RepairStepName, dict[str, Any]] = {
        RepairStepName.ANALYZE: {
            "instruction": ask.instruction,
            "service": name,
            "workspace": service.workspace,
            "notes": _notes(profile, ask),
            "logArtifact": "analyze.log",
        },
        RepairStepName.PATCH: {
            "service": name,
            "workspace": service.workspace,
            "allowlist": list(service.allowlist),
            "diffArtifact": "patch.diff",
            "commands": ask.patch.commands or [],
        },
        RepairStepName.BUILD: {
            "service": name,
            "composeProject": service.project,
            "logArtifact": "build.log",
            "command": [*compose, "build", name],
        },
        RepairStepName.RESTART: {
            "service": name,
            "composeProject": service.project,
            "logArtifact": "restart.log",
            "command": up,
            "restartTimeoutSeconds": service.restart_timeout_seconds,
        },
        RepairStepName.VERIFY: {
            "service": name,
            "logArtifact": "verify.log",
            "healthcheck": None
            if probe is None
            else {
                "url": probe.url,
                "method": probe.method,
                "timeoutSeconds": probe.timeout_seconds,
                "intervalSeconds": probe.interval_seconds,
                "expectedStatus": probe.expected_status,
            },
        },
        RepairStepName.ROLLBACK: {
            "service": name,
            "logArtifact": "rollback.log",
            "strategies": [{"type": "image swap", "commands": [up]}],
        },
    }
    return [{"name": step.value, "parameters": parameters} for step, parameters in described.items()]


def resume(plan: Plan, first: RepairStepName, *, of: UUID | None, at: UUID | None) -> Resumption:
    """Return how a run goes on from one of the steps but the last.

    `of` is its task whose work a host still holds, and `at` the agent there, which does what goes on with that.
    """
    held, agent = (None if one is None else str(one) for one in (of, at))
    hints = {name: hint for name, hint in plan.steps[0].hints.items() if name != "agent_id"}
    is_one = plan.steps[0].name == REPAIR
    if first in AFTER and not is_one:
        return Resumption(DEPLOY, {DEPLOY: _deploy(_from(first, AFTER), held, hints, agent)})
    steps = _from(first, ALL if is_one else BEFORE)
    where = hints if RepairStepName.PATCH in steps else _at(agent, hints)
    begin = {"parameters": _parameters(steps, resumes=held), "hints": where}
    if is_one:
        return Resumption(REPAIR, {REPAIR: begin})
    return Resumption(PREPARE, {PREPARE: begin, DEPLOY: _deploy(AFTER, PREPARED, hints, PREPARED_BY)})


def planned_steps(plan: Plan) -> dict[RepairStepName, str]:
    """Return which step of a plan does which steps of a repair, as it is to be carried out now."""
    found: dict[RepairStepName, str] = {}
    for step in plan.steps:
        names = step.parameters["steps"]
        assert isinstance(names, list)
        found |= {RepairStepName(str(name)): step.name for name in names}
    return found


def first_parameters(plan: Plan, run_id: UUID) -> dict[str, Any]:
    """Return the parameters of the first task of a run, which need nothing but its inputs."""
    scope = Scope(plan.inputs, {"id": str(run_id), "name": plan.name}, lambda _: {})
    parameters: dict[str, Any] = resolve(plan.steps[0].parameters, scope, "parameters")
    return parameters


def _from(first: RepairStepName, steps: Sequence[RepairStepName]) -> Sequence[RepairStepName]:
    return steps[steps.index(first) :]


def _parameters(steps: Sequence[RepairStepName], **prepared: str | None) -> dict[str, Any]:
    """Return the parameters of a task with these steps; `prepared` names what one goes on with that does not patch."""
    given = {name: f"${{inputs.{name}}}" for name in ("service", "profile", "instruction")}
    more = {"patch": "${inputs.patch}"} if RepairStepName.PATCH in steps else prepared
    return {"run_id": "${run.id}", **given, "steps": [step.value for step in steps], **more}


def _deploy(
    steps: Sequence[RepairStepName], resumes: str | None, hints: Mapping[str, Any], agent: str | None
) -> dict[str, Any]:
    """Return the parameters and hints of what people agree to: exactly the diff that was prepared, where it was."""
    result = f"steps.{PREPARE}.result"
    diff = {"diff": f"${{{result}.diff}}", "diff_sha256": f"${{{result}.diff_sha256}}"}
    return {"parameters": _parameters(steps, resumes=resumes, **diff), "hints": _at(agent, hints)}


def _at(agent: str | None, hints: Mapping[str, Any]) -> dict[str, Any]:
    return dict(hints) if agent is None else {**hints, "agent_id": agent}


def outdated(services: Services, about: Mapping[str, Any], plan: Plan) -> str | None:
    """Return why the repair of a service is not tried again as it was planned; None when it may be.

    What its host may touch, and whom it takes, is what the services file says today. Other runs are always tried again.
    """
    name = about.get("service")
    if not isinstance(name, str):
        return None
    try:
        profile = services.get(name)
    except UnknownService as unknown:
        return str(unknown)
    service = profile.service
    demand = demand_at(service, service.requirement)
    today = (profile.compose_service, _profile(service), service.requirement.value, demand)
    then = (plan.inputs.get("service"), plan.inputs.get("profile"), about.get("gate"), plan.steps[-1].approval)
    if today == then:
        return None
    return f"the description of the service {name!r} has changed since it was started: start another run"


def _profile(service: Service) -> dict[str, Any]:
    return service.profile.model_dump(mode="json", exclude_defaults=True)


def _hints(profile: Profile) -> dict[str, Any]:
    service = profile.service
    hints: dict[str, Any] = {"required_capabilities": dict(service.labels)} if service.labels else {}
    return hints if service.agent_type is None else {**hints, "agent_type": service.agent_type}


def _diff_in(text: str) -> str | None:
    """Return the diffs in a text, one after another; None when there is none."""
    blocks = _BLOCK.findall(text)
    if len(_BEGIN.findall(text)) > len(blocks):
        raise InvalidField("instruction", "has a line ```diff without a line ``` behind it, which ends the diff")
    return "".join(blocks) if blocks else None


def _checked(diff: str) -> PatchSource:
    if not diff.strip():
        raise InvalidField("instruction", "has a line ```diff with no diff behind it")
    if len(diff) > LONGEST_DIFF:
        raise InvalidField("instruction", f"must have at most {LONGEST_DIFF} characters of diff")
    return PatchSource(diff=diff)


def _compose(profile: Profile) -> list[str]:
    service = profile.service
    files = [part for file in service.compose_files for part in ("-f", str(PurePosixPath(service.workspace) / file))]
    return [*(service.compose_command or ("docker", "compose")), "--project-name", service.project, *files]


def _notes(profile: Profile, ask: Ask) -> str:
    change = "A unified diff is applied." if ask.patch.diff is not None else "Commands change the files."
    if profile.service.healthcheck is None:
        return f"{change} Only the state of the container is verified: the service has no probe."
    return change
