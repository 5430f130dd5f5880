"""Settings of an agent: `CHIFFON_AGENT_…` in the environment, or the table `[agent]` of the TOML file."""

import os
import socket
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from agents.secrets.model import SecretSources
from common.config import Settings, config_file, split_list
from common.confinement import UNCONFINED, Confinement
from common.json_rules import Line
from common.labels import AUTHORITY, MOST_LABELS, Labels
from common.progress import on_one_line
from common.work import AgentType

ExecutorClass = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")]
EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

DEFAULT_ENV_ALLOW = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR"]


def default_state_dir(agent_type: str) -> Path:
    """Return where an agent keeps its state, by the XDG base directory rules."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "chiffon" / f"agent-{agent_type}"


class AgentSettings(Settings):
    """What one agent needs to know; each agent on a host needs a `state_dir` of its own."""

    model_config = SettingsConfigDict(env_prefix="CHIFFON_AGENT_", validate_default=True)
    table: ClassVar[str | None] = "agent"

    type: AgentType = Field(
        default="infra",
        description="The pool that this agent belongs to; it takes work from the queue work.<type>.<its id>.",
    )
    name: Line = Field(
        default_factory=lambda: on_one_line(socket.gethostname()) or "unnamed",
        min_length=1,
        max_length=255,
        description="The name that is shown for this agent; the host's name when not set.",
    )
    server_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/?#]+(/[^?#]*)?$",
        description="The orchestrator's address, http:// or https://: the agent takes its work over HTTP, by the queue "
        "API, instead of from a message bus. Give this or broker_url, not both.",
    )
    labels: Labels = Field(
        default_factory=dict,
        description="What this agent has, for work that requires or prefers it: names with a text, a number, true or "
        "false, or a list of texts; in the environment a JSON object.",
    )
    slots: int = Field(default=4, ge=1, le=256, description="How many tasks run side by side.")
    state_dir: Path = Field(
        default_factory=lambda fields: default_state_dir(fields.get("type", "infra")),
        description="Where the agent keeps its identity, the workspaces, the journal of what it started and the "
        "results and files that are not stored yet; each agent needs one of its own.",
    )
    heartbeat_seconds: float = Field(
        default=10.0, ge=0.05, le=300, description="How often the agent says that it is there and how it is."
    )
    stop_grace_seconds: float = Field(
        default=30.0, ge=0, le=86_400, description="How long a stopping agent lets running work go on."
    )
    kill_grace_seconds: float = Field(
        default=10.0, ge=0, le=600, description="How long a process has between SIGTERM and SIGKILL."
    )
    lease_seconds: int = Field(
        default=60,
        ge=1,
        le=86_400,
        description="Over HTTP: how long a task is this agent's without renewing; the orchestrator's "
        "queue_max_lease_seconds is the most.",
    )
    claim_wait_seconds: float = Field(
        default=20.0,
        ge=0,
        le=60,
        description="Over HTTP: how long a claim waits at the orchestrator for work; give less than what a proxy in "
        "between allows.",
    )
    result_resend_seconds: float = Field(
        default=10.0,
        ge=0.05,
        le=3600,
        description="A result that is not known to be stored is sent again after this time, then ever more rarely.",
    )
    deaf_exit_seconds: float = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="An agent that has heard nothing for this long, although it can publish, ends with an error, for a "
        "service manager to start it again; 0: it goes on reconnecting.",
    )
    env_allow: Annotated[list[EnvironmentName], NoDecode] = Field(
        default=DEFAULT_ENV_ALLOW,
        max_length=256,
        description="The agent's environment variables that work inherits; comma-separated or a JSON list.",
    )
    secrets: SecretSources = Field(
        default_factory=dict,
        description="Secrets of this host that work may refer to by name, each from one of env, file and command, and "
        "with work_types, where only some may use it. Their names, and nothing else, are announced as the label "
        "`secrets`.",
    )
    run_as: str | None = Field(
        default=None,
        min_length=1,
        description="The user as whom programs run, for which the agent must run as root; when not set, its own.",
    )
    sandbox_readable: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        max_length=256,
        description="What programs in the sandbox can read besides the system, such as /opt/tools; comma-separated or "
        "a JSON list.",
    )
    sandbox_writable: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        max_length=256,
        description="What programs in the sandbox can write besides their workspace: directories, devices and sockets; "
        "comma-separated or a JSON list.",
    )
    confinement: Confinement = Field(
        default=UNCONFINED,
        description="How far all programs are shut in, whatever a policy demands beyond that: network_off, sandbox, "
        "own_user, max_memory_bytes, max_cpu_seconds, max_open_files, max_processes, max_file_bytes.",
    )
    signatures: Literal["required", "off"] = Field(
        default="required",
        description="Whether the agent runs only what its orchestrator has signed. off: it runs whatever the broker "
        "delivers, so that who controls the broker controls this host.",
    )
    trusted_keys: Path | None = Field(
        default=None,
        description="A file with the public keys (PEM) that sign this agent's work: what `chiffon keys list --pem` "
        "prints. Later keys come by themselves, signed by one of these, and are kept in state_dir.",
    )
    policy_file: Path | None = Field(
        default=None,
        description="A policy (TOML) of this host's own, in the orchestrator's format: what it does not let run, "
        "this agent does not run, also when it is signed.",
    )
    clock_skew_seconds: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        description="How far this host's clock may differ from the orchestrator's; a grant that expired longer ago is "
        "not run.",
    )
    output_bytes_per_second: int = Field(
        default=16 * 1024 * 1024,
        ge=256 * 1024,
        le=16 * 1024**3,
        description="How much one attempt may write in a second, twice that in the first; a program that writes faster "
        "is slowed down, and nothing of its output is lost for that.",
    )
    executors: Annotated[list[ExecutorClass], NoDecode] = Field(
        default_factory=list,
        max_length=50,
        description="Executors of your own, as `module:Class`, which the agent imports when it starts; separated by "
        "commas or a JSON list.",
    )
    playbooks_dir: Path | None = Field(
        default=None,
        description="The directory of the playbooks and inventories that work of the type ansible may use; without it, "
        "or without ansible-playbook, the agent does not offer such work.",
    )
    compose_root: Path | None = Field(
        default=None,
        description="The directory below which the workspaces of compose services lie that this agent repairs; without "
        "it, or without docker and git, the agent does not offer such work.",
    )
    cwd_allow: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        max_length=256,
        description="Directories of this host in which, and below which, a shell_script may begin that names one as "
        "its cwd; comma-separated or a JSON list.",
    )
    max_artifact_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=0,
        le=16 * 1024**3,
        description="How large a file may be that work keeps, or gets.",
    )
    max_artifacts_bytes: int = Field(
        default=4 * 1024**3,
        ge=0,
        le=1024**4,
        description="How many bytes of kept files may wait in the state_dir to be sent and stored, all together.",
    )
    keep_workspaces: bool = Field(
        default=False, description="Keep the directory of each attempt after its end, to look into it."
    )

    @property
    def announced_labels(self) -> dict[str, Any]:
        """The labels, and what the agent says by itself that it has."""
        return {**self.labels, **({"secrets": sorted(self.secrets)} if self.secrets else {})}

    @field_validator("labels")
    @classmethod
    def _leave_room_for_announced_labels(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := AUTHORITY.intersection(value):
            raise ValueError(f"the agent announces {', '.join(sorted(taken))} itself; use another name")
        if len(value) > MOST_LABELS - len(AUTHORITY):
            raise ValueError(f"must have at most {MOST_LABELS - len(AUTHORITY)} labels")
        return value

    @field_validator("state_dir", "trusted_keys", "policy_file", "playbooks_dir", "compose_root")
    @classmethod
    def _make_absolute(cls, value: Path | None) -> Path | None:
        # Work runs in a directory of its own, from which a relative path would lead elsewhere.
        return None if value is None else value.expanduser().absolute()

    @field_validator("sandbox_readable", "sandbox_writable", "cwd_allow")
    @classmethod
    def _name_places(cls, value: list[Path]) -> list[Path]:
        paths = [path.expanduser() for path in value]
        if any(not path.is_absolute() or path == Path("/") for path in paths):
            raise ValueError("must be absolute paths, and not /")
        return paths

    @field_validator("env_allow", "executors", "sandbox_readable", "sandbox_writable", "cwd_allow", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return split_list(value)


def own_files(settings: AgentSettings) -> tuple[Path, ...]:
    """Return what is the agent's own, which no program in the sandbox sees."""
    secrets = (Path(source.file).absolute() for source in settings.secrets.values() if source.file is not None)
    others = (settings.trusted_keys, settings.policy_file, config_file())
    return (settings.state_dir, *(path.absolute() for path in others if path is not None), *secrets)
