"""A policy as people write it: one TOML file of rules, in which every mistake is named."""

import hashlib
import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from common.canonical import MAX_INTEGER, canonical_json
from common.confinement import UNCONFINED, Confinement
from common.errors import StartupRefused
from common.json_rules import check_json
from common.policy.model import ApprovalDemand, Effect
from common.policy.patterns import Globs, Patterns, one_or_many
from common.private import check_private
from common.toml_text import read_toml

# Stands for any variable, in a rule that lets anything run.
ANY = "*"
LONGEST_NAME = 256
LONGEST_PARAMETER = 200
ENV = "env."
PROGRAMS = frozenset({"argv.0", "shell"})
SCRIPT = "script"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class InvalidPolicy(StartupRefused):
    """The file is not a policy; the message names each rule and field that is wrong."""


def _is_a_variable(text: str) -> str:
    if text != ANY and _VARIABLE.fullmatch(text) is None:
        raise ValueError(
            f"{text!r} is no name of a variable: letters, digits and '_' are allowed, and no patterns; "
            '"*" alone stands for any'
        )
    return text


Variable = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(_is_a_variable)]
Variables = Annotated[tuple[Variable, ...], Field(max_length=200), BeforeValidator(one_or_many)]
ParameterPath = Annotated[str, Field(min_length=1, max_length=LONGEST_PARAMETER)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Allow(Part):
    """What work that matches may use. Patterns match the whole text."""

    executables: Patterns | None = Field(
        default=None, description="The program as given: argv[0], or the shell of a script; any, without this."
    )
    arguments: Patterns | None = Field(default=None, description="Each argument of the program; any, without this.")
    scripts: bool | None = Field(
        default=None, description="Whether scripts may run; no, where executables, arguments or files are named."
    )
    directories: Patterns | None = Field(default=None, description="The working directory, where work names one.")
    environment: Variables = Field(
        default=(), description="Variables that work may set, each by its name; none, without this."
    )
    files: Globs | None = Field(
        default=None, description="Files that arguments may name; ** is one name or more, * and ? stay within a name."
    )

    leaves_processes: bool = Field(
        default=False, description="Whether what a program has started may live on after it; no, without this."
    )
    receives_files: bool = Field(
        default=False,
        description="Whether work may have files put where its program begins; no, without this, unless environment "
        'is "*".',
    )

    @property
    def lets_scripts_run(self) -> bool:
        return self.lets_any_program_run if self.scripts is None else self.scripts

    @property
    def lets_any_program_run(self) -> bool:
        return self.executables is None and self.arguments is None and self.files is None

    @property
    def lets_any_variable(self) -> bool:
        return ANY in self.environment


class Limits(Part):
    max_duration_seconds: float | None = Field(default=None, gt=0)
    max_parameter_bytes: int | None = Field(default=None, ge=1)


class Rule(Part):
    """Which work it is about, and what holds for it. What is not given matches anything."""

    name: str = Field(min_length=1, max_length=100)
    work_type: Patterns | None = None
    agent_type: Patterns | None = None
    labels: dict[str, Any] = Field(default_factory=dict, description="Labels that the work requires of its agent.")
    parameters: dict[ParameterPath, Patterns] = Field(
        default_factory=dict, description="A path such as argv.0 or env.STAGE, and what must stand there."
    )
    effect: Effect
    allow: Allow = Allow()
    limits: Limits = Limits()
    confinement: Confinement = UNCONFINED
    approval: ApprovalDemand | None = None

    @model_validator(mode="after")
    def _any_variable_stands_alone(self) -> Self:
        allow = self.allow
        if not allow.lets_any_variable:
            return self
        is_fence = self.parameters or allow.directories is not None or not allow.lets_scripts_run
        if is_fence or not allow.lets_any_program_run or len(allow.environment) > 1:
            raise ValueError(
                'allow.environment: "*" lets a program run any other, so it stands alone, and only in a rule whose '
                "scripts may run, without parameters, executables, arguments, directories and files; "
                "name the variables instead"
            )
        return self

    @model_validator(mode="after")
    def _can_be_hashed(self) -> Self:
        check_json(self.model_dump(mode="json", exclude_defaults=True))
        return self

    @cached_property
    def variables(self) -> frozenset[str]:
        """The variables that the rule names, in `allow.environment` or as `env.NAME` in `parameters`."""
        demanded = (path.removeprefix(ENV) for path in self.parameters if path.startswith(ENV))
        return frozenset((*self.allow.environment, *demanded))

    @property
    def names_program(self) -> bool:
        """Whether it says which programs it is about."""
        return self.allow.executables is not None or not self.parameters.keys().isdisjoint(PROGRAMS)

    @property
    def names_script(self) -> bool:
        """Whether it says which script runs."""
        return SCRIPT in self.parameters

    @cached_property
    def names_arguments(self) -> bool:
        """Whether it says which arguments a program may have."""
        demanded = (path for path in self.parameters if path.startswith("argv.") and path not in PROGRAMS)
        return self.allow.arguments is not None or any(demanded)

    @property
    def names_directory(self) -> bool:
        """Whether it says where work may run."""
        return self.allow.directories is not None or self.allow.files is not None or "cwd" in self.parameters


class Policy(Part):
    """Rules in their order: the first that matches decides, and what matches none is refused."""

    version: int = Field(ge=1, le=MAX_INTEGER, description="A number for people; raise it with every change.")
    rule: tuple[Rule, ...] = Field(max_length=1000)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        twice = sorted(name for name, times in Counter(rule.name for rule in self.rule).items() if times > 1)
        if twice:
            raise ValueError(f"two rules have the name {twice[0]!r}")
        return self

    @cached_property
    def id(self) -> str:
        """The version that tasks, approvals and events name: the number, and a digest of what the rules say."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return f"{self.version}-{hashlib.sha256(canonical_json(content)).hexdigest()[:12]}"


def parse_policy(text: str, *, source: str) -> Policy:
    """Return the policy that a TOML text holds; raises `InvalidPolicy`, which names every mistake."""
    try:
        given = read_toml(text)
    except ValueError as error:
        raise InvalidPolicy(f"{source} is not TOML: {error}") from None
    try:
        return Policy.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        lines = "\n".join(f"  {_place(problem['loc'], given)}: {problem['msg']}" for problem in problems[:20])
        raise InvalidPolicy(f"{source} is not a policy:\n{lines}") from None


def read_policy(path: Path) -> Policy:
    """Return the policy in a file; raises `InvalidPolicy`."""
    try:
        check_private(path, "The policy")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPolicy(f"The policy {path} cannot be read: {error}.") from None
    return parse_policy(text, source=str(path))


def _place(location: tuple[int | str, ...], given: dict[str, Any]) -> str:
    """Name the rule instead of its number, as people know it."""
    match location:
        case ("rule", int(number), *rest):
            rules = given.get("rule")
            rule = rules[number] if isinstance(rules, list) and number < len(rules) else None
            name = rule.get("name") if isinstance(rule, dict) else None
            return ".".join([f"rule {name!r}" if name else f"rule number {number + 1}", *map(str, rest)])
        case _:
            return ".".join(map(str, location)) or "the file"
