"""The services that can be repaired, as people describe them: one TOML file, in which every mistake is named.

Each table `[service.NAME]` is one service of a Docker Compose project on one host. What the host needs to know of it is
its `ServiceProfile`; the rest says which host that is and who must agree first.
"""

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from common.compose import MOST_COMMANDS, Arguments, ComposeService, ServiceProfile
from common.errors import StartupRefused
from common.fields import place_in, problem_in
from common.labels import Labels
from common.policy.model import ApprovalDemand
from common.private import check_private
from common.rest.identities import Role
from common.toml_text import read_toml
from common.work import AgentType

MOST_SERVICES = 1000
TABLE = "service"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class InvalidServices(StartupRefused):
    """The file does not describe services; the message has a line for each mistake, and may say how many are good."""

    def __init__(self, mistakes: Sequence[str], *, good: str | None = None) -> None:
        title = "These services are not usable:" if good is None else f"These services are not usable ({good}):"
        super().__init__("\n".join([title, *mistakes]))
        self.mistakes = tuple(mistakes)


class Requirement(StrEnum):
    """When people are asked: never, before anything is touched, or when the change is known and built."""

    NONE = "none"
    PRE_RUN = "pre-run"
    PRE_VERIFY = "pre-verify"


class Gate(ApprovalDemand):
    """When people are asked about a repair, and who of them."""

    requirement: Requirement = Field(
        description="none: nobody is asked. pre-run: people agree to the plan before anything is touched. pre-verify: "
        "they agree to the diff, when it is built and before the service is restarted."
    )

    @field_validator("roles")
    @classmethod
    def _roles_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for role in value:
            if role not in list(Role):
                raise ValueError(f"{role!r} is no role; allowed: {', '.join(Role)}")
        return value

    @property
    def demand(self) -> ApprovalDemand:
        """What is asked of people, wherever it is asked."""
        return ApprovalDemand(**{name: getattr(self, name) for name in ApprovalDemand.model_fields})


class Service(ServiceProfile):
    """A service that can be repaired. `name` is that of its table."""

    service: ComposeService | None = Field(
        default=None,
        description="What the service is called in the compose files, when that is not the name of the table.",
    )
    labels: Labels = Field(
        default_factory=dict,
        description="The labels of the agent on its host: a repair goes to an agent that has all of them.",
    )
    agent_type: AgentType | None = Field(
        default=None, description="The pool of that agent, when it is not the one that the routes name."
    )
    commands: list[Arguments] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_COMMANDS,
        description="What changes the files when a request brings neither a diff nor commands.",
    )
    approval: Gate | None = Field(default=None, description="When people are asked about a repair, and who of them.")

    @model_validator(mode="after")
    def _its_own_commands_are_allowed(self) -> Self:
        self.check_commands(self.commands or ())
        return self

    def check_commands(self, commands: Sequence[Sequence[str]]) -> None:
        """Raise ValueError for the first command that does not begin, word for word, with one that is allowed."""
        for number, command in enumerate(commands, start=1):
            if not self.allows(command):
                known = "; ".join(map(" ".join, self.commands_allowed)) or "none"
                raise ValueError(
                    f"command {number} begins with {command[0]!r}, and commands_allowed has nothing that it begins "
                    f"with; allowed: {known}"
                )

    @property
    def requirement(self) -> Requirement:
        return Requirement.NONE if self.approval is None else self.approval.requirement

    @property
    def profile(self) -> ServiceProfile:
        """What its host needs to know."""
        return ServiceProfile(**{name: getattr(self, name) for name in ServiceProfile.model_fields})


def _is_a_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            "the name of a service has lower-case letters, digits and . _ - only, a letter or digit first, and at most "
            "63 characters; 'service' in the table says what compose calls it"
        )
    return name


ServiceName = Annotated[str, AfterValidator(_is_a_name)]


class ServiceFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: dict[ServiceName, Service] = Field(default_factory=dict, max_length=MOST_SERVICES)


def parse_services(text: str, *, source: str) -> dict[str, Service]:
    """Return the services that a TOML text describes, by their names; raises `InvalidServices`."""
    try:
        given = read_toml(text)
    except ValueError as error:
        raise InvalidServices([f"{source} cannot be read: {error}."]) from None
    try:
        return dict(ServiceFile.model_validate(given).service)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        lines = [f"{source}: {line}" for line in _lines(problems, given)]
        raise InvalidServices(lines, good=_good_in(given, problems)) from None


def read_services(path: Path) -> dict[str, Service]:
    """Return the services in a file; raises `InvalidServices`, and `NotPrivate` for a file that others may write."""
    try:
        check_private(path, "The file of services")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidServices([f"{path} cannot be read: {error}."]) from None
    return parse_services(text, source=str(path))


def good_of(good: int, all_: int) -> str:
    """Say how many of the services in a file are good."""
    return f"{good} of {all_} {'service' if all_ == 1 else 'services'} {'is' if good == 1 else 'are'} good"


def _good_in(given: dict[str, Any], problems: Sequence[Any]) -> str | None:
    """Say how many services have no mistake; None where the file has no tables of services."""
    tables = given.get(TABLE)
    if not isinstance(tables, dict) or not tables:
        return None
    bad = {found["loc"][1] for found in problems if found["loc"][0] == TABLE and len(found["loc"]) > 1}
    return good_of(len(tables) - len(bad), len(tables))


def _lines(problems: Sequence[Any], given: dict[str, Any]) -> Iterator[str]:
    """Name each mistake by its table and key."""
    for found in problems:
        problem = problem_in(found, ServiceFile).rstrip(".")
        match found["loc"]:
            case (str(table), str(name), "[key]") if table == TABLE:
                yield f"[{TABLE}.{name}]: {problem}."
            case (str(table), str(name), *_) if table == TABLE:
                key = ".".join(map(str, place_in(given, found["loc"])[2:]))
                yield f"[{TABLE}.{name}]{' ' * bool(key)}{key}: {problem}."
            case place:
                yield f"{'.'.join(map(str, place))}: {problem}."
