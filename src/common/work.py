"""The work types and their parameters: what a caller may ask for and an executor must understand.

The orchestrator checks parameters when work is dispatched, so that a mistake is answered at once, and the agent checks
them again before it runs anything.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from common.artifacts import ArtifactName, Sha256
from common.compose import COMPOSE_REPAIR, ComposeRepairParameters
from common.errors import InvalidField
from common.fields import place_in, problem_in
from common.json_rules import Number, SafeText, Truth, check_json, check_line, check_size, check_text

WORK_TYPE_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
AGENT_TYPE_PATTERN = r"^[a-z][a-z0-9-]{0,31}$"

LONGEST_WORK_TYPE = 200

# The name of a work type in a route, and the type of a job, which may be any text.
WorkType = Annotated[str, StringConstraints(pattern=WORK_TYPE_PATTERN)]
AnyWorkType = Annotated[str, Field(max_length=LONGEST_WORK_TYPE), AfterValidator(check_line)]
AgentType = Annotated[str, StringConstraints(pattern=AGENT_TYPE_PATTERN)]

SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]

# The grants of several tasks travel in one message.
MAX_PARAMETERS_BYTES = 512 * 1024
MAX_DURATION_SECONDS = 7 * 24 * 3600
# How many files a piece of work gets, and how many patterns say which are kept of it.
MOST_FILES = 64
LONGEST_PATTERN = 1024
ANY_FOLDERS = "**"
# What an agent itself makes in a workspace, and where a script and what a playbook needs lie in it.
WORKSPACE_FOLDERS = frozenset({".progress", ".tmp"})
SCRIPT_FILE = "script"
SUMMARY_FILE, VARIABLES_FILE, SUMMARY_PLUGIN = "chiffon_summary.json", "chiffon_extra_vars.yml", "ansible_summary.py"
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Such variables decide what runs on the agent: interpreters, options of ssh, debuggers.
_OPTION_OF_ANSIBLE = re.compile(r"_*ansible_.*")
# What Ansible itself says of a host, an inventory and a play. Given from outside, most of it would count: as
# `inventory_hostname` ssh connects to another host than the one that is named, and takes an option for one.
_SAID_BY_ANSIBLE = frozenset(
    {
        "delegated_vars",
        "discovered_interpreter_python",
        "group_names",
        "groups",
        "hostvars",
        "inventory_dir",
        "inventory_file",
        "inventory_hostname",
        "inventory_hostname_short",
        "omit",
        "play_hosts",
        "playbook_dir",
        "role_name",
        "role_names",
        "role_path",
    }
)
_HOST = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:\[\]-]*")


class Parameters(BaseModel):
    """The base of all parameters: unknown names are refused, so that a typing error is not silently ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SecretReference(Parameters):
    """Stands for a text that only the agent's host knows; the agent looks it up right before it starts the work."""

    secret: SecretName = Field(description="The name of the secret in the agent's settings.")


class EchoParameters(Parameters):
    """Return a text unchanged; proves that the whole path works."""

    message: SafeText = Field(default="", max_length=65_536, description="The text to return.")


class ProgramLimits(Parameters):
    """How long a program may run, and be silent."""

    max_duration_seconds: Number = Field(
        default=3600.0, gt=0, le=MAX_DURATION_SECONDS, description="The program is stopped after this many seconds."
    )
    max_silence_seconds: Number | None = Field(
        default=None,
        gt=0,
        le=MAX_DURATION_SECONDS,
        description="The program is stopped when it has written nothing, on either stream, for this many seconds.",
    )


def _check_task(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError("must be the id of a task") from None


def _check_pattern(pattern: str) -> str:
    check_line(pattern)
    if "\\" in pattern:
        raise ValueError("must not contain a backslash: parts of a path are separated by /")
    parts = pattern.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError("must be a relative path without empty parts, . and ..")
    if any(ANY_FOLDERS in part and part != ANY_FOLDERS for part in parts):
        raise ValueError("'**' stands for folders, so it must be a part of the path by itself, as in dist/**/*.whl")
    return pattern


ArtifactPattern = Annotated[str, Field(min_length=1, max_length=LONGEST_PATTERN), AfterValidator(_check_pattern)]


class FileReference(Parameters):
    """A file that work gets: what was uploaded, what another task kept, or a text."""

    upload: Sha256 | None = Field(default=None, description="The SHA-256 of an upload, in hexadecimal digits.")
    task: Annotated[str, AfterValidator(_check_task)] | None = Field(
        default=None, description="The task that kept the file `artifact`."
    )
    artifact: ArtifactName | None = Field(default=None, description="The name under which `task` kept it.")
    text: SafeText | None = Field(default=None, max_length=262_144, description="What the file holds.")

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        sources = (self.upload, self.task, self.text)
        if sum(source is not None for source in sources) != 1 or (self.task is None) != (self.artifact is None):
            raise ValueError("give exactly one of 'upload', 'text', and 'task' with its 'artifact'")
        return self


class WithFiles(Parameters):
    """Which files work gets in its workspace, and which of those that it leaves there are kept.

    `own_names` are those in the workspace that an agent uses itself.
    """

    own_names: ClassVar[frozenset[str]] = WORKSPACE_FOLDERS

    files: dict[ArtifactName, FileReference] = Field(
        default_factory=dict,
        max_length=MOST_FILES,
        description="Files that are put into the workspace before the work begins: a path, and one of "
        '`{"upload": "SHA-256"}`, `{"task": "ID", "artifact": "NAME"}` and `{"text": "…"}`.',
    )
    artifacts: list[ArtifactPattern] = Field(
        default_factory=list,
        max_length=MOST_FILES,
        description="Which files of the workspace are kept when the work has ended: paths in it, with `*`, `?`, "
        "`[…]`, and `**` for any folders.",
    )

    @field_validator("files")
    @classmethod
    def _files_have_places(cls, value: dict[str, Any]) -> dict[str, Any]:
        for path in value:
            parts = path.split("/")
            if parts[0] in cls.own_names:
                raise ValueError(f"{path!r} is not possible: the agent itself uses {parts[0]!r}; take another name")
            above = ("/".join(parts[:count]) for count in range(1, len(parts)))
            if (folder := next((one for one in above if one in value), None)) is not None:
                raise ValueError(f"{path!r} is not possible: {folder!r} is a file, too")
        return value


class ShellScriptParameters(WithFiles, ProgramLimits):
    """Run a program: either `argv`, started without a shell, or `script`, given to `shell`."""

    argv: list[SafeText] | None = Field(
        default=None, min_length=1, max_length=1024, description="Program and arguments, run without a shell."
    )
    script: SafeText | None = Field(
        default=None, min_length=1, max_length=262_144, description="Text of a script, given to `shell`."
    )
    shell: SafeText = Field(default="/bin/sh", min_length=1, max_length=4096, description="What runs `script`.")
    env: dict[str, SafeText | SecretReference] = Field(
        default_factory=dict,
        max_length=256,
        description="Environment variables in addition to the agent's allow-list; a value may be "
        '`{"secret": "NAME"}`.',
    )
    stdin: Annotated[str, Field(max_length=262_144), AfterValidator(check_text)] | SecretReference = Field(
        default="", description='Text for the program\'s standard input, at most 262144, or `{"secret": "NAME"}`.'
    )
    leaves_processes: Truth = Field(
        default=False,
        description="What the program has started lives on when it has ended by itself; otherwise it is killed.",
    )
    cwd: SafeText | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="The working directory: a path in the workspace, which is made, or an absolute one in a directory "
        "that the agent's `cwd_allow` names. The workspace, without this.",
    )

    @field_validator("argv", mode="before")
    @classmethod
    def _no_secret_in_sight(cls, value: Any) -> Any:
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            raise ValueError(
                "takes texts only: everybody on the host can see arguments, so give secrets in 'env' or 'stdin'"
            )
        return value

    @field_validator("cwd")
    @classmethod
    def _says_where_it_is(cls, value: str | None) -> str | None:
        if value is not None and ".." in value.split("/"):
            raise ValueError("must not contain '..'")
        return value

    @model_validator(mode="after")
    def _exactly_one_program(self) -> Self:
        if (self.argv is None) == (self.script is None):
            raise ValueError("give exactly one of 'argv' and 'script'")
        if self.script is not None and any(path.split("/")[0] == SCRIPT_FILE for path in self.files):
            raise ValueError(f"'files' must not name {SCRIPT_FILE!r}: that is the script itself; take another name")
        if self.script is not None and _first_name(self.cwd or "") == SCRIPT_FILE:
            raise ValueError(f"'cwd' must not begin with {SCRIPT_FILE!r}: that is the script itself; take another name")
        for name in self.env:
            if not _ENVIRONMENT_NAME.fullmatch(name):
                raise ValueError(f"'env' has a name that is not allowed: {name!r}; use letters, digits and '_'")
        return self


def _first_name(path: str) -> str:
    """Return the first name of a relative path."""
    names = [] if path.startswith("/") else path.split("/")
    return next((name for name in names if name not in ("", ".")), "")


def _kind_of(value: Any) -> str:
    is_reference = isinstance(value, SecretReference) or (isinstance(value, dict) and value.keys() == {"secret"})
    return "secret" if is_reference else "value"


ExtraVariable = Annotated[
    Annotated[SecretReference, Tag("secret")] | Annotated[JsonValue, Tag("value")], Discriminator(_kind_of)
]


class AnsibleParameters(WithFiles, ProgramLimits):
    """Run a playbook of the agent's host with ansible-playbook."""

    own_names: ClassVar[frozenset[str]] = WORKSPACE_FOLDERS | {SUMMARY_FILE, VARIABLES_FILE, SUMMARY_PLUGIN}

    playbook: SafeText = Field(
        min_length=1, max_length=4096, description="The playbook: a path in the agent's `playbooks_dir`."
    )
    inventory: SafeText | None = Field(
        default=None,
        min_length=1,
        max_length=65_536,
        description="Host names with commas (`web1,web2`, or `web1,` for one), or a path in the agent's "
        "`playbooks_dir`; without it that of the host's `ansible.cfg`.",
    )
    limit: SafeText | None = Field(
        default=None, min_length=1, max_length=65_536, description="Only hosts that match this pattern."
    )
    tags: list[SafeText] = Field(default_factory=list, max_length=256, description="Only tasks with one of these tags.")
    extra_vars: Annotated[dict[str, ExtraVariable], AfterValidator(check_json)] = Field(
        default_factory=dict,
        max_length=256,
        description='Variables, which are never evaluated as templates; a value may be `{"secret": "NAME"}`.',
    )
    check: Truth = Field(default=False, description="Change nothing, and say what would be changed.")

    @field_validator("playbook")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("must be a path in the agent's playbooks_dir: relative, and without '..'")
        return value

    @field_validator("inventory")
    @classmethod
    def _hosts_are_names(cls, value: str | None) -> str | None:
        if value is None or "," not in value:
            return None if value is None else cls._stays_inside(value)
        for host in filter(None, value.split(",")):
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is no name or address of a host")
        return value

    @field_validator("limit")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        if value is not None and "@" in value:
            raise ValueError("must be a pattern of hosts: '@', which names a file, is not allowed")
        return value

    @field_validator("tags")
    @classmethod
    def _tags_are_single(cls, value: list[str]) -> list[str]:
        if any(not tag or "," in tag for tag in value):
            raise ValueError("each must be one tag, without a comma")
        return value

    @field_validator("extra_vars")
    @classmethod
    def _names_are_the_plays(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not _ENVIRONMENT_NAME.fullmatch(name):
                raise ValueError(f"has a name that is not allowed: {name!r}; use letters, digits and '_'")
            if _OPTION_OF_ANSIBLE.fullmatch(name):
                raise ValueError(
                    f"has a name that is not allowed: {name!r}; those with 'ansible_' belong to inventories"
                )
            if name in _SAID_BY_ANSIBLE:
                raise ValueError(f"has a name that is not allowed: {name!r}; Ansible itself gives it its value")
        return value


class MetricsParameters(Parameters):
    """Measure the agent's host: processor, load, memory, disks, uptime and GPUs."""

    seconds: Number = Field(
        default=0.5, ge=0.1, le=60, description="For how long the use of the processor is measured."
    )


PARAMETERS: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "echo": EchoParameters,
        "shell_script": ShellScriptParameters,
        "ansible": AnsibleParameters,
        "metrics": MetricsParameters,
        COMPOSE_REPAIR: ComposeRepairParameters,
    }
)

# Which type of agent runs which type of work, unless the settings of the orchestrator say otherwise.
DEFAULT_ROUTES: Mapping[str, str] = MappingProxyType(
    {"echo": "infra", "shell_script": "infra", "ansible": "infra", "metrics": "desktop", COMPOSE_REPAIR: "infra"}
)


def check_parameters(work_type: str, parameters: Mapping[str, Any], place: str = "parameters") -> None:
    """Raise `InvalidField` for the first parameter that the work type does not allow, or if all are too large.

    `place` is where the parameters stand.
    """
    try:
        check_size(parameters, MAX_PARAMETERS_BYTES)
    except ValueError as problem:
        raise InvalidField(place, str(problem)) from None
    model = PARAMETERS.get(work_type)
    if model is None:
        return
    try:
        model.model_validate(parameters)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, (place, *place_in(parameters, found["loc"]))))
        raise InvalidField(field, problem_in(found, model)) from None


def content_of(work_type: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what parameters say: the same for a default whether it is spelled out or not.

    Parameters of a type without a model, or that its model does not allow any more, say what is written.
    """
    model = PARAMETERS.get(work_type)
    try:
        return parameters if model is None else model.model_validate(parameters).model_dump(exclude_defaults=True)
    except ValidationError:
        return parameters
