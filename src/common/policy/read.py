"""A policy as people write it: one TOML file of rules, in which every mistake is named."""

import hashlib
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from common.canonical import canonical_json
from common.confinement import UNCONFINED, Confinement
from common.errors import StartupRefused
from common.policy.model import ApprovalDemand, Effect
from common.private import check_private

LONGEST_PATTERN = 500


class InvalidPolicy(StartupRefused):
    """The file is not a policy; the message names each rule and field that is wrong."""


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a pattern: {error}") from None
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=LONGEST_PATTERN), AfterValidator(_pattern)]
Patterns = Annotated[
    tuple[Pattern, ...],
    Field(min_length=1, max_length=200),
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
]
Texts = Annotated[tuple[str, ...], Field(max_length=200)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Allow(Part):
    """What work that matches may use; None where anything is allowed. Patterns match the whole text."""

    executables: Patterns | None = Field(default=None, description="The program: argv[0], or the shell of a script.")
    scripts: bool | None = Field(default=None, description="Whether scripts may run; no, where executables are named.")
    directories: Patterns | None = Field(default=None, description="The working directory, where work names one.")
    environment: Patterns | None = Field(default=None, description="Names of environment variables that work may set.")
    files: Texts | None = Field(
        default=None, description="Globs for arguments that are paths; ** crosses directories, * and ? do not."
    )

    leaves_processes: bool = Field(
        default=False, description="Whether what a program has started may live on after it; no, without this."
    )

    @property
    def lets_scripts_run(self) -> bool:
        return self.executables is None if self.scripts is None else self.scripts


class Limits(Part):
    max_duration_seconds: float | None = Field(default=None, gt=0)
    max_parameter_bytes: int | None = Field(default=None, ge=1)


class Rule(Part):
    """Which work it is about, and what holds for it. What is not given matches anything."""

    name: str = Field(min_length=1, max_length=100)
    work_type: Patterns | None = None
    agent_type: Patterns | None = None
    labels: dict[str, Any] = Field(default_factory=dict, description="Labels that the work requires of its agent.")
    parameters: dict[str, Patterns] = Field(
        default_factory=dict, description="A path such as argv.0 or env.STAGE, and what must stand there."
    )
    effect: Effect
    allow: Allow | None = None
    limits: Limits = Limits()
    confinement: Confinement = UNCONFINED
    approval: ApprovalDemand | None = None


class Policy(Part):
    """Rules in their order: the first that matches decides, and what matches none is refused."""

    version: int = Field(ge=1, description="A number for people; raise it with every change.")
    rule: tuple[Rule, ...] = Field(max_length=1000)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [rule.name for rule in self.rule]
        if twice := sorted({name for name in names if names.count(name) > 1}):
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
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
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
