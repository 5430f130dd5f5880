"""Which rule decides about work, and what it says: pure."""

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.canonical import canonical_json
from common.policy.model import Refused, Ruling, Work
from common.policy.read import Allow, Limits, Patterns, Policy, Rule

LONGEST_SUBJECT = 4096

# Variables by which a program runs what its caller wants rather than what its command line says. A rule that says what
# work may use lets one through only where it names it, letter by letter: no pattern reaches them.
HIJACKING = frozenset(
    [
        "BASHOPTS",
        "BASH_ENV",
        "DYLD_INSERT_LIBRARIES",
        "DYLD_LIBRARY_PATH",
        "ENV",
        "GCONV_PATH",
        "GIT_CONFIG",
        "GIT_CONFIG_GLOBAL",
        "GIT_EDITOR",
        "GIT_EXEC_PATH",
        "GIT_EXTERNAL_DIFF",
        "GIT_PAGER",
        "GIT_PROXY_COMMAND",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "IFS",
        "JAVA_TOOL_OPTIONS",
        "LD_AUDIT",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LESSOPEN",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PAGER",
        "PATH",
        "PERL5LIB",
        "PERL5OPT",
        "PROMPT_COMMAND",
        "PS4",
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "RUBYLIB",
        "RUBYOPT",
        "SHELLOPTS",
    ]
)


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
    closest: Finding | None = None
    for rule in policy.rule:
        finding = look(rule, work)
        if not finding.matches:
            if closest is None or len(finding.mismatches) < len(closest.mismatches):
                closest = finding
            continue
        if finding.violations:
            reason = f"The rule {rule.name!r} does not allow this: {'; '.join(finding.violations)}."
            return Refused(reason, policy.id, rule.name)
        return Ruling(
            rule.name,
            policy.id,
            rule.effect,
            rule.approval,
            rule.confinement,
        )
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
    allowed = [] if rule.allow is None else list(_beyond(rule.allow, work.parameters))
    return Finding(rule.name, (), [*allowed, *_left(rule, work.parameters), *_too_much(rule.limits, work.parameters)])


def _mismatches(rule: Rule, work: Work) -> Iterable[str]:
    if rule.work_type is not None and not _matches(rule.work_type, work.work_type):
        yield f"work_type {work.work_type!r} is not {_either(rule.work_type)}"
    if rule.agent_type is not None and not _matches(rule.agent_type, work.agent_type):
        yield f"agent_type {work.agent_type!r} is not {_either(rule.agent_type)}"
    required = work.hints.get("required_capabilities")
    asked = required if isinstance(required, Mapping) else {}
    for name, value in rule.labels.items():
        if asked.get(name) != value:
            yield f"it does not require the label {name} = {value!r}"
    for path, patterns in rule.parameters.items():
        found = _at(work.parameters, path)
        if found is None or not _matches(patterns, found):
            yield f"parameters.{path} is not {_either(patterns)}"


def _beyond(allow: Allow, parameters: Mapping[str, Any]) -> Iterable[str]:
    argv, is_script = _argv(parameters)
    if is_script and not allow.lets_scripts_run:
        yield "scripts are not allowed"
    if allow.executables is not None and argv and not _matches(allow.executables, argv[0]):
        yield f"the program {argv[0]!r} is not {_either(allow.executables)}"
    directory = parameters.get("cwd")
    if allow.directories is not None and isinstance(directory, str):
        normal = posixpath.normpath(directory)
        if not _matches(allow.directories, normal):
            yield f"the directory {normal!r} is not {_either(allow.directories)}"
    yield from _variables(allow, parameters)
    if allow.files is not None:
        for path in filter(_is_path, argv[1:]):
            normal = posixpath.normpath(path)
            if not any(_glob(glob).fullmatch(normal) for glob in allow.files):
                yield f"the path {normal!r} is not under {_either(allow.files)}"


def _variables(allow: Allow, parameters: Mapping[str, Any]) -> Iterable[str]:
    given = parameters.get("env")
    for name in sorted(given) if isinstance(given, Mapping) else ():
        if name in HIJACKING or name.startswith(("LD_", "DYLD_")):
            if name not in (allow.environment or ()):
                yield f"the variable {name} makes programs run something else, and is not allowed by its name"
        elif allow.environment is not None and not _matches(allow.environment, name):
            yield f"the variable {name!r} is not {_either(allow.environment)}"


def _left(rule: Rule, parameters: Mapping[str, Any]) -> Iterable[str]:
    # Also for a rule that allows anything else: what lives on is beyond every limit of the work.
    if parameters.get("leaves_processes", False) is not False and not (rule.allow and rule.allow.leaves_processes):
        yield "leaves_processes lets what a program has started live on, and is not allowed"


def _too_much(limits: Limits, parameters: Mapping[str, Any]) -> Iterable[str]:
    if limits.max_duration_seconds is not None:
        wanted = parameters.get("max_duration_seconds")
        if not isinstance(wanted, int | float) or wanted > limits.max_duration_seconds:
            yield f"max_duration_seconds must be given, and at most {limits.max_duration_seconds:g}"
    if limits.max_parameter_bytes is not None and len(canonical_json(parameters)) > limits.max_parameter_bytes:
        yield f"the parameters must have at most {limits.max_parameter_bytes} bytes of JSON"


def _argv(parameters: Mapping[str, Any]) -> tuple[list[str], bool]:
    argv = parameters.get("argv")
    if isinstance(argv, list):
        return [str(part) for part in argv], False
    if "script" in parameters:
        return [str(parameters.get("shell", "/bin/sh"))], True
    return [], False


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


def _matches(patterns: Patterns, text: str) -> bool:
    # The whole text: an allowed name must not let through what only begins or ends with it.
    return len(text) <= LONGEST_SUBJECT and any(re.fullmatch(pattern, text) for pattern in patterns)


def _either(patterns: Iterable[str]) -> str:
    return " or ".join(repr(pattern) for pattern in patterns)


def _is_path(argument: str) -> bool:
    return argument.startswith("/") or ".." in argument.split("/")


def _glob(glob: str) -> re.Pattern[str]:
    """Return the pattern of a glob: ** is anything, * anything within one name, ? one character of it."""
    parts = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*|\?)", glob)), re.DOTALL)
