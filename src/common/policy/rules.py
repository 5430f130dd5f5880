"""Which rule decides about work, and what it says: pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.canonical import canonical_json
from common.policy.arguments import UP, goes_up, problem_of, shown
from common.policy.model import Refused, Ruling, Work
from common.policy.patterns import normal_path
from common.policy.read import Allow, Limits, Policy, Rule

DEFAULT_SHELL = "/bin/sh"
# How many variables a message names.
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule has to do with some work: why it does not match, or, if it does, what the work may not do."""

    rule: str
    mismatches: Sequence[str]
    violations: Sequence[str] = ()

    @property
    def matches(self) -> bool:
        return not self.mismatches


def decide(policy: Policy, work: Work) -> Ruling | Refused:
    """Return what the first rule that matches says; work that none matches is refused."""
    for rule in policy.rule:
        if any(True for _ in _mismatches(rule, work)):
            continue
        if violations := list(_violations(rule, work.parameters)):
            reason = f"The rule {rule.name!r} does not allow this: {'; '.join(violations)}."
            return Refused(reason, policy.id, rule.name)
        return Ruling(
            rule.name,
            policy.id,
            rule.effect,
            rule.approval,
            rule.confinement,
        )
    closest = min(explain(policy, work), key=lambda finding: len(finding.mismatches), default=None)
    if closest is None:
        return Refused("The policy has no rules.", policy.id)
    reason = f"No rule lets this run. The closest is {closest.rule!r}, and {'; '.join(closest.mismatches)}."
    return Refused(reason, policy.id, closest.rule)


def explain(policy: Policy, work: Work) -> list[Finding]:
    """Return what each rule has to do with the work, up to the one that decides."""
    findings = []
    for rule in policy.rule:
        findings.append(look(rule, work))
        if findings[-1].matches:
            break
    return findings


def look(rule: Rule, work: Work) -> Finding:
    """Hold one rule against some work."""
    if mismatches := list(_mismatches(rule, work)):
        return Finding(rule.name, mismatches)
    return Finding(rule.name, (), list(_violations(rule, work.parameters)))


def _mismatches(rule: Rule, work: Work) -> Iterator[str]:
    if rule.work_type is not None and not rule.work_type.match(work.work_type):
        yield f"work_type {work.work_type!r} is not {rule.work_type}"
    if rule.agent_type is not None and not rule.agent_type.match(work.agent_type):
        yield f"agent_type {work.agent_type!r} is not {rule.agent_type}"
    if rule.labels:
        required = work.hints.get("required_capabilities")
        asked = required if isinstance(required, Mapping) else {}
        for name, value in rule.labels.items():
            if asked.get(name) != value:
                yield f"it does not require the label {name} = {value!r}"
    for path, patterns in rule.parameters.items():
        found = _at(work.parameters, path)
        if found is None or not patterns.match(found):
            yield f"parameters.{path} is not {patterns}"


def _violations(rule: Rule, parameters: Mapping[str, Any]) -> Iterator[str]:
    allow = rule.allow
    yield from _program(rule, parameters)
    if rule.names_directory:
        yield from _directory(allow, parameters.get("cwd"))
    if not allow.lets_any_variable:
        yield from _variables(rule, parameters)
    # Also for a rule that allows anything else: what lives on is beyond every limit of the work.
    if parameters.get("leaves_processes", False) is not False and not allow.leaves_processes:
        yield "leaves_processes lets what a program has started live on, and is not allowed"
    # Programs obey what lies where they begin: their settings, plugins and makefiles.
    if parameters.get("files") and not (allow.receives_files or allow.lets_any_variable):
        yield "files puts files where the program begins, which allow.receives_files does not allow"
    yield from _too_much(rule.limits, parameters)


def _program(rule: Rule, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield which programs the work may not run, and which arguments it may not give them."""
    allow, argv, script = rule.allow, parameters.get("argv"), parameters.get("script")
    if script is not None and not allow.lets_scripts_run:
        yield "scripts are not allowed"
    if not (rule.names_program or rule.names_script or rule.names_arguments or allow.files is not None):
        return
    if argv is not None and not _is_command(argv):
        yield "argv is not a list of texts that begins with a program"
        return
    if argv is not None and script is not None:
        yield "it gives both argv and script"
    programs = [*(argv or ())[:1], *([] if script is None else [parameters.get("shell", DEFAULT_SHELL)])]
    if allow.executables is not None and not programs:
        yield f"it names no program, which must be {allow.executables}"
    for program in programs:
        if not isinstance(program, str) or (rule.names_program and normal_path(program) != program):
            yield f"the program {shown(str(program))} is not written without '.', '..' and empty names"
        elif allow.executables is not None and not allow.executables.match(program):
            yield f"the program {shown(program)} is not {allow.executables}"
    # What reads a script decides what it means.
    if rule.names_script and not rule.names_program and programs[-1:] != [DEFAULT_SHELL]:
        yield f"the shell must be {DEFAULT_SHELL}: the rule names the script and no shell"
    yield from _arguments(rule, (argv or ())[1:])


def _arguments(rule: Rule, arguments: Sequence[str]) -> Iterator[str]:
    allow = rule.allow
    if rule.names_arguments and (up := next(filter(goes_up, arguments), None)) is not None:
        yield f"the argument {shown(up)} {UP}"
    elif allow.arguments is not None:
        refused = next((one for one in arguments if not allow.arguments.match(one)), None)
        if refused is not None:
            yield f"the argument {shown(refused)} is not {allow.arguments}"
    if allow.files is not None and (problem := problem_of(arguments, allow.files)) is not None:
        yield problem


def _directory(allow: Allow, directory: Any) -> Iterator[str]:
    if directory is None:
        return
    if not isinstance(directory, str) or ".." in directory.split("/"):
        yield f"the directory {shown(str(directory))} is not a path without '..'"
    elif allow.directories is not None:
        if not allow.directories.match(normal_path(directory)):
            yield f"the directory {shown(directory)} is not {allow.directories}"
    elif allow.files is not None and (problem := problem_of([directory], allow.files)) is not None:
        yield f"cwd: {problem}"


def _variables(rule: Rule, parameters: Mapping[str, Any]) -> Iterator[str]:
    given = parameters.get("env")
    if not given or "env" in rule.parameters:  # a text that the rule demands sets no variable
        return
    if not isinstance(given, Mapping):
        yield "env is not an object of variables"
        return
    if refused := sorted(name for name in given if name not in rule.variables):
        more = len(refused) - MOST_NAMED
        names = ", ".join(map(shown, refused[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
        yield f"env sets {names}, which allow.environment does not name"


def _too_much(limits: Limits, parameters: Mapping[str, Any]) -> Iterator[str]:
    if limits.max_duration_seconds is not None:
        wanted = parameters.get("max_duration_seconds")
        if not isinstance(wanted, int | float) or wanted > limits.max_duration_seconds:
            yield f"max_duration_seconds must be given, and at most {limits.max_duration_seconds:g}"
    if limits.max_parameter_bytes is not None and len(canonical_json(parameters)) > limits.max_parameter_bytes:
        yield f"the parameters must have at most {limits.max_parameter_bytes} bytes of JSON"


def _is_command(argv: Any) -> bool:
    return isinstance(argv, list | tuple) and len(argv) > 0 and all(isinstance(part, str) for part in argv)


def _at(parameters: Mapping[str, Any], path: str) -> str | None:
    """Return the text at a path such as argv.0; None where there is none."""
    value: Any = parameters
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    if isinstance(value, str):
        return value
    return None if isinstance(value, Mapping | list) else canonical_json(value).decode()
