"""The settings of the orchestrator: environment `CHIFFON_…` over the table `[orchestrator]` of the TOML file."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, Field, IPvAnyNetwork, field_validator
from pydantic_settings import NoDecode

from common.config import Settings, split_list
from common.work import DEFAULT_ROUTES, AgentType, WorkType


class OrchestratorSettings(Settings):
    """What an orchestrator needs to know; every value is checked once, at start."""

    table: ClassVar[str | None] = "orchestrator"

    database_url: str = Field(
        default="postgresql://chiffon:chiffon@127.0.0.1:5432/chiffon",
        pattern=r"^postgres(ql)?://",
        description="The PostgreSQL database that holds the ledger; several hosts: "
        "`postgresql://user:password@one:5432,two:5432/database`.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(default=8420, ge=0, le=65535, description="The port to listen on; 0 picks a free one.")
    tls_cert_file: Path | None = Field(
        default=None,
        description="The certificate chain (PEM) to serve HTTPS with; tls_key_file belongs to it.",
    )
    tls_key_file: Path | None = Field(default=None, description="The private key (PEM) of tls_cert_file.")
    trusted_proxies: Annotated[list[IPvAnyNetwork], NoDecode] = Field(
        default=[],
        max_length=100,
        description="The addresses or networks of reverse proxies, comma-separated or a JSON list: only theirs are "
        "X-Forwarded-For and X-Forwarded-Proto believed, and they are not limited like one client.",
    )
    broker_identities: Literal["checked", "trusted"] | None = Field(
        default=None,
        description="checked: what is said for an agent counts only when RabbitMQ's user of that very agent sent it. "
        "trusted: whoever reaches the message bus is believed. When not set, checked for amqp:// and amqps://, trusted "
        "for other buses, which know no users.",
    )
    authentication: Literal["required", "off"] = Field(
        default="required",
        description="off: nobody is asked for a token, and whoever reaches this host's loopback may do everything; "
        "refused on every other address.",
    )
    token_requests_per_second: float = Field(
        default=5_000.0,
        ge=0.1,
        le=1_000_000,
        description="How many requests one token may make, ten times that at once.",
    )
    token_websockets: int = Field(
        default=100, ge=1, le=100_000, description="How many WebSockets may be open with one token."
    )
    failed_logins_per_second: float = Field(
        default=1.0,
        ge=0.01,
        le=10_000,
        description="How many wrong tokens one address may send, ten times that at once; then wrong ones get 429.",
    )
    routes: dict[WorkType, AgentType] = Field(
        default_factory=lambda: dict(DEFAULT_ROUTES),
        min_length=1,
        description="Which type of agent runs which type of work.",
    )
    policy_file: Path | None = Field(
        default=None, description="The policy (TOML) that says what may run; without it, anything may."
    )
    lease_seconds: float = Field(
        default=60.0, ge=1, le=3600, description="How long an agent owns a task without renewing."
    )
    priority_ageing_seconds: float = Field(
        default=600.0, ge=1, le=86_400, description="Waiting this long is worth one level of priority."
    )
    agent_offline_after_seconds: float = Field(
        default=30.0, ge=1, le=3600, description="An agent is offline when it has been silent for this long."
    )
    agent_gone_after_seconds: float = Field(
        default=7 * 24 * 3600.0,
        ge=60,
        description="An agent that has been silent for this long is not listed any more, unless it is asked for.",
    )
    clock_skew_seconds: float = Field(
        default=300.0,
        ge=1,
        le=86_400,
        description="An agent whose clock differs by more than this from the database's gets no work.",
    )
    probe_seconds: float = Field(
        default=5.0, ge=0.1, le=300, description="How often a no-op is sent through the broker and must come back."
    )
    breaker_failures: int = Field(
        default=5, ge=1, le=1000, description="An agent that fails so often in a row gets no work for a while."
    )
    breaker_seconds: float = Field(
        default=60.0, ge=0.1, le=86_400, description="For how long it gets none; then one task may try."
    )
    dispatch_batch: int = Field(default=500, ge=1, le=5_000, description="The most dispatches in one transaction.")
    max_body_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024, description="The largest request body that is read."
    )
    queue_max_lease_seconds: float = Field(
        default=3600.0, ge=1, le=604_800, description="The longest lease that a worker over HTTP may ask for."
    )
    max_output_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1024,
        le=16 * 1024**3,
        description="How much is kept of each stream of output of one attempt.",
    )
    signing_keys_dir: Path | None = Field(
        default=None,
        description="The directory of the keys that sign what agents may run; `chiffon keys rotate` makes the first. "
        "The orchestrator does not start without it, unless `signatures` is off.",
    )
    signatures: Literal["required", "off"] = Field(
        default="required",
        description="Whether what agents may run is signed. off: without `signing_keys_dir` nothing is, and only "
        "agents whose own `signatures` is off run anything.",
    )
    audit_checkpoints_file: Path | None = Field(
        default=None,
        description="The file to which signed checkpoints of the audit log are appended, outside the database; needs "
        "`signing_keys_dir`. Without it nothing tells when the whole log is rewritten.",
    )
    audit_checkpoint_seconds: float = Field(
        default=60.0, ge=0.1, le=86_400, description="How often a checkpoint is written when something happened."
    )
    artifacts_dir: Path = Field(
        default=Path("var/artifacts"),
        description="The directory of the files that work keeps; the same for all orchestrators on one database.",
    )
    max_artifact_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1024, le=16 * 1024**3, description="The largest file that is kept."
    )
    max_run_artifact_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024,
        le=1024**4,
        description="How many bytes the files of one run may have together, or those of one task outside of any run.",
    )
    max_artifacts_bytes: int = Field(
        default=10 * 1024**3,
        ge=1024,
        le=1024**5,
        description="How many bytes all files that are kept may have together, with those that people uploaded.",
    )
    artifact_keep_days: float | None = Field(
        default=None,
        ge=0.01,
        le=36_500,
        description="How many days files are kept after their run, or their task outside of any run, has ended, and "
        "uploads after they were last uploaded; then their content is removed. Without it they are kept for ever.",
    )
    artifact_link_seconds: float = Field(
        default=900.0, ge=1, le=604_800, description="How long a signed path to a file lets it be read without a token."
    )
    services_file: Path | None = Field(
        default=None, description="The compose services (TOML) that can be repaired; without it there are none."
    )
    statsd_host: str = Field(
        default="",
        validation_alias=AliasChoices("chiffon_statsd_host", "orchestrator_statsd_host", "statsd_host"),
        description="Where metrics of runs are sent to, over UDP; without it none are. Also read from "
        "ORCHESTRATOR_STATSD_HOST and STATSD_HOST.",
    )
    statsd_port: int = Field(
        default=8125,
        ge=1,
        le=65535,
        validation_alias=AliasChoices("chiffon_statsd_port", "orchestrator_statsd_port", "statsd_port"),
        description="The port there. Also read from ORCHESTRATOR_STATSD_PORT and STATSD_PORT.",
    )
    statsd_prefix: str = Field(
        default="moonmind.orchestrator",
        pattern=r"^[A-Za-z0-9_.-]*$",
        validation_alias=AliasChoices("chiffon_statsd_prefix", "orchestrator_metrics_prefix", "statsd_prefix"),
        description="What the names of these metrics begin with. Also read from ORCHESTRATOR_METRICS_PREFIX "
        "and STATSD_PREFIX.",
    )
    database_connections: int = Field(default=10, ge=3, le=200, description="The most connections to PostgreSQL.")

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_list(value)

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @property
    def queue_max_lease(self) -> timedelta:
        return timedelta(seconds=self.queue_max_lease_seconds)

    @property
    def priority_ageing(self) -> timedelta:
        return timedelta(seconds=self.priority_ageing_seconds)

    @property
    def breaker_pause(self) -> timedelta:
        return timedelta(seconds=self.breaker_seconds)

    @property
    def probe(self) -> timedelta:
        return timedelta(seconds=self.probe_seconds)

    @property
    def audit_checkpoint(self) -> timedelta:
        return timedelta(seconds=self.audit_checkpoint_seconds)

    @property
    def artifact_link(self) -> timedelta:
        return timedelta(seconds=self.artifact_link_seconds)

    @property
    def artifact_keep(self) -> timedelta | None:
        return None if self.artifact_keep_days is None else timedelta(days=self.artifact_keep_days)

    @property
    def agent_offline_after(self) -> timedelta:
        return timedelta(seconds=self.agent_offline_after_seconds)

    @property
    def agent_gone_after(self) -> timedelta:
        return timedelta(seconds=self.agent_gone_after_seconds)

    @property
    def clock_skew(self) -> timedelta:
        return timedelta(seconds=self.clock_skew_seconds)

    @property
    def agent_types(self) -> tuple[str, ...]:
        """Every type of agent that some work is routed to, in a fixed order."""
        return tuple(sorted(set(self.routes.values())))


# The defaults as they are written above, whatever the environment says: for parts that are made without settings.
STANDARD = OrchestratorSettings.model_construct()
