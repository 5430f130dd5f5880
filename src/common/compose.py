"""Repairs of compose services: what a host must know to change a service, and to take the change back by itself."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self, get_args
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from common.artifacts import Sha256
from common.json_rules import Line, Number, SafeText, WholeNumber, check_line, check_size, check_text
from common.result import MAX_RESULT_BYTES

COMPOSE_REPAIR = "compose_repair"
# Why nobody else dispatches it. What a host may do to a service is in its parameters, so no caller writes them: the
# services file says it.
ONLY_PLANNED = (
    f"{COMPOSE_REPAIR!r} is only dispatched by a repair of a service in the services file: "
    "start one with POST /orchestrator/runs or `chiffon runs repair`, which take the service, an instruction, and a "
    "diff or commands as the patch"
)

RepairStep = Literal["analyze", "patch", "build", "restart", "verify"]
# In their order.
REPAIR_STEPS: tuple[RepairStep, ...] = get_args(RepairStep)

LONGEST_INSTRUCTION = 100_000
LONGEST_DIFF = 262_144
# Of a diff as people are shown it: a result holds it beside what else it says.
MOST_SHOWN_BYTES = MAX_RESULT_BYTES - 16 * 1024
LONGEST_PATH = 4096
LONGEST_GLOB = 499
MOST_GLOBS = 200
MOST_COMMANDS = 64
MOST_ARGUMENTS = 1024
MOST_COMPOSE_FILES = 16
LONGEST_WAIT = 3600

_URL = re.compile(r"https?://[^/?#\s@]+(/[^#\s]*)?")


def _check_relative(path: str) -> str:
    check_line(path)
    if not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise ValueError("must be a path relative to the workspace, without '.', '..' and empty names")
    return path


def _check_absolute(path: str) -> str:
    check_line(path)
    if not path.startswith("/") or not {"", ".", ".."}.isdisjoint(path[1:].split("/")):
        raise ValueError("must be an absolute path, and not /, without '.', '..', empty names and a slash at its end")
    return path


def _check_glob(glob: str) -> str:
    _check_relative(glob)
    if any("**" in name and name != "**" for name in glob.split("/")):
        raise ValueError("must have '**' as a whole name only, as in src/**/*.py; within a name '*' is allowed")
    return glob


def _check_shown(lines: list[str]) -> list[str]:
    check_size(lines, MOST_SHOWN_BYTES)
    return lines


def _check_url(url: str) -> str:
    check_line(url)
    try:
        is_address = _URL.fullmatch(url) is not None and urlsplit(url).port != 0
    except ValueError:  # its port is no number, or too great, or a bracket is open
        is_address = False
    if not is_address:
        raise ValueError("must be an address such as http://127.0.0.1:8080/health, without a user and a fragment")
    return url


Argument = Annotated[str, Field(max_length=LONGEST_DIFF), AfterValidator(check_text)]
Arguments = Annotated[list[Argument], Field(min_length=1, max_length=MOST_ARGUMENTS)]
RelativePath = Annotated[str, Field(min_length=1, max_length=LONGEST_PATH), AfterValidator(_check_relative)]
AbsolutePath = Annotated[str, Field(min_length=1, max_length=LONGEST_PATH), AfterValidator(_check_absolute)]
PathGlob = Annotated[str, Field(min_length=1, max_length=LONGEST_GLOB), AfterValidator(_check_glob)]
ShownDiff = Annotated[list[SafeText], Field(min_length=1), AfterValidator(_check_shown)]
ComposeService = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
ComposeProject = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class _Part(BaseModel):
    """Unknown names are refused, so that a typing error is not silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class HealthCheck(_Part):
    """An HTTP request that the repaired service must answer as expected."""

    url: Annotated[str, Field(max_length=LONGEST_PATH), AfterValidator(_check_url)] = Field(
        description="The address, as the host itself reaches the service."
    )
    method: Literal["GET", "HEAD", "POST"] = Field(default="GET", description="The method of the request.")
    timeout_seconds: Number = Field(
        default=120, gt=0, le=LONGEST_WAIT, description="The service must answer as expected within this time."
    )
    interval_seconds: Number = Field(
        default=5, ge=0.1, le=300, description="The longest pause between two requests; the first ones are shorter."
    )
    expected_status: WholeNumber = Field(default=200, ge=100, le=599, description="The status that is expected.")


class ServiceProfile(_Part):
    """What a host must know of a compose service to repair it."""

    project: ComposeProject = Field(description="The name of the compose project.")
    workspace: AbsolutePath = Field(
        description="The directory of the project on the host: the top of a git repository, below the agent's "
        "`compose_root`."
    )
    compose_files: list[RelativePath] = Field(
        default=["docker-compose.yml"],
        min_length=1,
        max_length=MOST_COMPOSE_FILES,
        description="The compose files, relative to the workspace, in the order in which they are merged.",
    )
    allowlist: list[PathGlob] = Field(
        min_length=1,
        max_length=MOST_GLOBS,
        description="The files that a repair may change, relative to the workspace: `*` and `?` stay within one name, "
        "`**` is one name or more.",
    )
    commands_allowed: list[Arguments] = Field(
        default_factory=list,
        max_length=MOST_COMMANDS,
        description="How a command of a repair may begin, word for word; without any, only diffs are taken.",
    )
    healthcheck: HealthCheck | None = Field(
        default=None,
        description="The request that shows that the service works; without it the state of its containers must do.",
    )
    restart_timeout_seconds: Number = Field(
        default=60, gt=0, le=LONGEST_WAIT, description="How long compose may take to restart the service."
    )
    compose_command: Arguments | None = Field(
        default=None,
        description="The program and first arguments of compose; without it `docker compose`, or else "
        "`docker-compose`, whichever the host has.",
    )

    def allows(self, command: Sequence[str]) -> bool:
        """Return whether a command begins with one of those that are allowed."""
        return any(list(command[: len(words)]) == words for words in self.commands_allowed)


class PatchSource(_Part):
    """What changes the files: a unified diff, or commands that run in a copy of the workspace."""

    diff: SafeText | None = Field(
        default=None, min_length=1, max_length=LONGEST_DIFF, description="A unified diff, as `git diff` writes it."
    )
    commands: list[Arguments] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_COMMANDS,
        description="Programs with their arguments, run one after another without a shell; each must begin with one "
        "of the commands that the service allows.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.diff is None) == (self.commands is None):
            raise ValueError("give exactly one of 'diff' and 'commands'")
        return self


class ComposeRepairParameters(_Part):
    """Repair a service of a Docker Compose project; the host verifies the change, or takes it back."""

    run_id: UUID = Field(description="The run that this is a part of.")
    service: ComposeService = Field(description="The service, as the compose files call it.")
    profile: ServiceProfile = Field(description="What the host must know of it.")
    instruction: SafeText = Field(
        default="", max_length=LONGEST_INSTRUCTION, description="What is to be done, for people."
    )
    patch: PatchSource | None = Field(default=None, description="What changes the files; needed for the step `patch`.")
    steps: list[RepairStep] = Field(
        min_length=1, max_length=len(REPAIR_STEPS), description="The steps to do, in their order and without a gap."
    )
    resumes: UUID | None = Field(
        default=None,
        description="The task of the same service and host whose patch, or image, this goes on with; not used where "
        "`steps` has `patch`.",
    )
    diff_sha256: Sha256 | None = Field(
        default=None, description="The SHA-256 of the diff that the host must hold of the task in `resumes`."
    )
    diff: ShownDiff | None = Field(
        default=None,
        description="The lines of that diff as people are asked about it, without the secrets of the host; they must "
        "be those that the host told of it.",
    )

    @field_validator("steps")
    @classmethod
    def _in_order(cls, value: list[RepairStep]) -> list[RepairStep]:
        first = REPAIR_STEPS.index(value[0])
        if tuple(value) != REPAIR_STEPS[first : first + len(value)]:
            raise ValueError(f"must be some of {', '.join(REPAIR_STEPS)}, in this order and without a gap")
        if value[-1] == "restart":
            raise ValueError("must have 'verify' after 'restart': what was restarted is verified, or taken back")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if ("patch" in self.steps) is (self.patch is None):
            raise ValueError("give 'patch' exactly when 'steps' has 'patch'")
        if self.resumes is None and self.steps[0] not in ("analyze", "patch"):
            raise ValueError(f"'resumes' is needed where 'steps' begins with {self.steps[0]!r}")
        if self.diff_sha256 is not None and (self.resumes is None or self.patch is not None):
            raise ValueError("'diff_sha256' is of the task in 'resumes', so give that, and no 'patch'")
        if self.diff is not None and self.diff_sha256 is None:
            raise ValueError(
                "'diff' needs 'diff_sha256' beside it: secrets are left out of the one, and not of the other"
            )
        for number, command in enumerate(self.patch.commands or () if self.patch else ()):
            if not self.profile.allows(command):
                raise ValueError(
                    f"patch.commands.{number}: no command of the service may begin with {command[0]!r} and what "
                    "follows it there; see 'commands_allowed' of its profile"
                )
        return self


class RepairResult(_Part):
    """What a repair returns: how it ended, and what it changed."""

    ending: Line = Field(description="verified, prepared, rolled_back, rolled_back_in_part, untouched")
    diff_sha256: str = Field(
        default="", description="The SHA-256 of the diff with the secrets in it; empty where there is none."
    )
    diff: list[str] = Field(
        default_factory=list,
        description="The lines of the diff without the secrets of the host, where people are asked before the restart.",
    )
    files: list[str] = Field(
        default_factory=list, description="The files that it changes; at most 100 are named, and 8 KiB of names."
    )
    image_before: str | None = Field(default=None, description="The id of the image that ran before.")
    image_after: str | None = Field(default=None, description="The id of the image that was built.")
