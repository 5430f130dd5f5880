"""What the orchestrator and the agents say to each other: the payloads of the envelopes in `common.protocol`.

All are frozen. Unknown fields are ignored, so that a newer peer can add some.
"""

import base64
from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, PrivateAttr

from common.artifacts import MOST_PIECES, ArtifactName, ArtifactType, PieceOfFile, Sha256
from common.canonical import MAX_INTEGER
from common.confinement import UNCONFINED, Confinement
from common.json_rules import Line
from common.labels import Labels
from common.moment import Moment
from common.policy.model import Effect
from common.progress import LONGEST_REPORT
from common.result import Result
from common.schemas import Schemas
from common.work import AgentType, AnyWorkType

MAX_CHUNK_BYTES = 256 * 1024
MAX_TAIL_BYTES = 16 * 1024
# Inner steps of an attempt. The name of the last one, with which a host says how a unit of work ended.
MOST_STEPS = 100
LAST_STEP = "rollback"
# More than any agent has, so that no message makes the ledger hold endless lists.
MOST_TASKS = 10_000
MOST_WORK_TYPES = 100
LONGEST_NAME = 255
# More than any host measures of itself, in per cent, GB or processes.
HIGHEST_FIGURE = 1_000_000
# The reason of a failure, and other texts for people that an agent writes.
LONGEST_MESSAGE = 4096

ByteCount = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
KeyId = Annotated[str, Field(min_length=1, max_length=64)]
# As far as the ledger counts.
AttemptNumber = Annotated[int, Field(ge=1, le=32_767)]
StepName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Stream(StrEnum):
    """Where a piece of output came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Credit(Message):
    """How much work one session of an agent takes: a session is one process of it, named by a random id.

    `limit` is how many tasks the session may have been granted in all: its slots, and one for each task that has ended.
    `received` is how many it was granted, and `heard` how many the orchestrator said it had granted, both as far as the
    agent knows. All three only grow, so a lost or repeated message changes nothing. `number` counts the session's
    messages: a grant names the newest one that the orchestrator had seen, and its lease counts from when that was sent.
    """

    session: UUID
    number: int = Field(ge=1, le=MAX_INTEGER)
    limit: int = Field(ge=0, le=MAX_INTEGER)
    received: int = Field(default=0, ge=0, le=MAX_INTEGER)
    heard: int = Field(default=0, ge=0, le=MAX_INTEGER)


class WorkRequest(Message):
    """What is to be done."""

    task_id: UUID
    work_type: AnyWorkType
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    hints: dict[str, JsonValue] = Field(default_factory=dict)


class GrantedTask(Message):
    """The lease of one task: the agent may run it until `lease_seconds` after it asked for work, unless it renews.

    `claim_id` is the session of the agent that it was leased to; over HTTP, the claim.
    Of each stream of its output `max_output_bytes` are kept; None: all. `target` is the type of agent that it is for
    and `policy_version` the policy that let it run; with the work they make its digest (`common.canonical`).
    `approval_id` names the approval of exactly this, where one was needed.
    """

    claim_id: UUID
    work: WorkRequest
    trace_id: UUID
    request_id: UUID
    attempt: AttemptNumber
    lease_seconds: float = Field(gt=0)
    max_output_bytes: int | None = Field(default=None, ge=0)
    target: AgentType | None = None
    policy_version: str = ""
    effect: Effect = Effect.WRITE
    approval_id: UUID | None = None
    confinement: Confinement = UNCONFINED
    _ruled: str | None = PrivateAttr(default=None)

    @property
    def ruled_digest(self) -> str | None:
        """The digest (hex) of what was ruled on, known to the orchestrator only: it is signed, and never sent."""
        return self._ruled

    def ruled_as(self, digest: bytes | None) -> Self:
        """Note the digest of what was ruled on, and return this."""
        self._ruled = None if digest is None else digest.hex()
        return self


class Grant(Message):
    """Leases of tasks; `signature` (`common.signing.jws`) is over exactly what each of them may run.

    `credit` is the number of the message in which the agent asked for them: their leases count from when it was sent.
    None over HTTP, where the agent knows its claim. `granted` is how many tasks its session was granted so far, so that
    the agent notices what did not come. `again`: the same leases may have been sent before.
    """

    tasks: list[GrantedTask] = Field(min_length=1)
    signature: str | None = None
    credit: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    granted: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    again: bool = False


class OutputChunk(Message):
    """A piece of what a task wrote. `number` counts a task's chunks from 0 over both streams; `offset` counts the
    bytes (UTF-8) of its own stream before it.
    """

    number: int = Field(ge=0, le=MAX_INTEGER)
    stream: Stream
    offset: int = Field(ge=0, le=MAX_INTEGER)
    text: str = Field(max_length=MAX_CHUNK_BYTES)


class StepStatus(StrEnum):
    """Where an inner step stands. All but `in_progress` are final."""

    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        return self is not StepStatus.IN_PROGRESS


class StepReport(Message):
    """Where an inner step of an attempt stands: a part of one task that its host does by itself.

    `position` is its place among them, from 0; times are by the host's clock.
    """

    position: int = Field(ge=0, le=MOST_STEPS - 1)
    name: StepName
    status: StepStatus
    started_at: Moment | None = None
    finished_at: Moment | None = None
    message: Line = Field(default="", max_length=LONGEST_MESSAGE)


class ArtifactPiece(Message):
    """A piece of a file that an attempt keeps: `data` is base64 of the bytes from `offset` on.

    `size` and `sha256` are those of the whole file, and the same in each of its pieces. An empty file is one piece.
    """

    name: ArtifactName
    type: ArtifactType
    sha256: Sha256
    size: ByteCount
    offset: ByteCount
    data: PieceOfFile

    @property
    def raw(self) -> bytes:
        return base64.b64decode(self.data)


class WorkStatus(Message):
    """What a task says while it runs, and of what it left behind.

    `progress` is a report as of `common.progress`; empty: none. `steps` are its inner steps, oldest report first, and
    `pieces` parts of the files that it keeps; both also count when the lease is over.
    """

    task_id: UUID
    agent_id: UUID
    attempt: AttemptNumber
    progress: Line = Field(default="", max_length=LONGEST_REPORT)
    chunks: list[OutputChunk] = Field(default_factory=list)
    steps: list[StepReport] = Field(default_factory=list, max_length=MOST_STEPS, exclude_if=lambda steps: not steps)
    pieces: list[ArtifactPiece] = Field(
        default_factory=list, max_length=MOST_PIECES, exclude_if=lambda pieces: not pieces
    )


class WantFile(Message):
    """An agent needs a piece of a file that work brings with it: `path` is a key of its `files`, in the workspace.

    The answer is a `FilePiece` with the same `want_id`.
    """

    want_id: UUID
    agent_id: UUID
    task_id: UUID
    attempt: AttemptNumber
    path: ArtifactName
    offset: ByteCount = 0


class ResultStatus(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class WorkResult(Message):
    """How an attempt ended.

    `output` is the end of what it wrote (both streams as they came, at most 16 KiB); `chunks` are those not yet sent;
    `output_bytes` says how much each stream holds in all, so that a reader knows when it has everything, and
    `output_dropped` how much more it wrote, beyond the limit. `started` is false for a task that is handed back
    untouched: that attempt does not count. `artifacts_path` is where the worker says that it put what it made, `result`
    what the executor returned, if anything.
    """

    task_id: UUID
    status: ResultStatus
    output: str = Field(default="", max_length=MAX_TAIL_BYTES)
    error_message: str | None = Field(default=None, max_length=LONGEST_MESSAGE)
    error_code: int | None = None
    exit_code: int | None = None
    duration_ms: int = Field(ge=0, le=MAX_INTEGER)
    agent_id: UUID
    attempt: AttemptNumber
    retryable: bool = False
    started: bool = True
    chunks: list[OutputChunk] = Field(default_factory=list)
    output_bytes: dict[Stream, ByteCount] = Field(default_factory=dict)
    output_dropped: dict[Stream, ByteCount] = Field(default_factory=dict)
    artifacts_path: Line | None = Field(default=None, max_length=LONGEST_MESSAGE)
    result: Result = None


class AgentStatus(StrEnum):
    """What an agent says of itself; `offline` is the orchestrator's word for one that has fallen silent."""

    ONLINE = "online"
    BUSY = "busy"
    DRAINING = "draining"
    OFFLINE = "offline"


class Resources(Message):
    """How much of the host is in use. Figures are None where nothing reports them.

    `load` is the average of the last minute, `memory_free_gb` what programs can still get. GPU figures are those of one
    GPU: the memory of the largest, and the most that is free on one.
    """

    cpu_percent: float = Field(ge=0, le=HIGHEST_FIGURE, description="Processor time in use.")
    memory_percent: float = Field(ge=0, le=HIGHEST_FIGURE, description="Memory in use.")
    cores: int | None = Field(default=None, ge=1, le=HIGHEST_FIGURE, description="Its logical processors.")
    load: float | None = Field(
        default=None, ge=0, le=HIGHEST_FIGURE, description="Its load, the average of the last minute."
    )
    memory_free_gb: float | None = Field(
        default=None, ge=0, le=HIGHEST_FIGURE, description="Memory that programs can still get."
    )
    gpu_vram_total_gb: float | None = Field(
        default=None, ge=0, le=HIGHEST_FIGURE, description="Memory of its largest GPU."
    )
    gpu_vram_available_gb: float | None = Field(
        default=None, ge=0, le=HIGHEST_FIGURE, description="The most memory that is free on one GPU."
    )


class StatusUpdate(Message):
    """The heartbeat, which is also the registration: who the agent is, what it can do, and what it does right now.

    `labels` is what it says that it has, for work that needs it. A heartbeat with a `beat_id` is answered with `Heard`.
    `trusted_keys` names the keys whose signatures count for it; None: it checks none. `sent_at` is the time by its own
    clock, `boot_id` a random name of its process. `credit` asks for work; None: the agent claims over HTTP. `schemas`
    are those of its work types that are not built in, until a heartbeat of its process was answered.
    """

    agent_id: UUID
    agent_type: AgentType
    status: AgentStatus
    hostname: Line = Field(max_length=LONGEST_NAME)
    version: Line = Field(max_length=LONGEST_NAME)
    work_types: list[AnyWorkType] = Field(max_length=MOST_WORK_TYPES)
    slots: int = Field(ge=1)
    current_tasks: list[UUID] = Field(default_factory=list, max_length=MOST_TASKS)
    resources: Resources
    started_at: Moment
    labels: Labels = Field(default_factory=dict)
    beat_id: UUID | None = None
    trusted_keys: list[KeyId] | None = Field(default=None, max_length=100)
    sent_at: Moment | None = None
    boot_id: UUID | None = None
    credit: Credit | None = None
    schemas: Schemas = Field(default_factory=dict, exclude_if=lambda schemas: not schemas)


class Lease(Message):
    """One attempt of a task. Its number is the fencing token: it rises with every lease.

    Earlier versions call it `fence`, and wrote it so into the spools of agents.
    """

    task_id: UUID
    attempt: AttemptNumber = Field(validation_alias=AliasChoices("attempt", "fence"))


class Renew(Message):
    """An agent wants to keep the tasks that it runs. `renewal_id` comes back in the answer."""

    renewal_id: UUID
    agent_id: UUID
    leases: list[Lease] = Field(min_length=1, max_length=MOST_TASKS)


class Renewed(Message):
    """The answer to `Renew`: the kept leases run `lease_seconds` from when the renewal was sent; `lost` must stop."""

    action: Literal["renewed"] = "renewed"
    renewal_id: UUID
    lease_seconds: float = Field(gt=0)
    kept: list[Lease] = Field(default_factory=list)
    lost: list[Lease] = Field(default_factory=list)


class CancelTask(Message):
    """Stop an attempt of a task."""

    action: Literal["cancel"] = "cancel"
    task_id: UUID
    attempt: AttemptNumber


class Stored(Message):
    """These results are in the ledger, or can never be: the agent may forget them."""

    action: Literal["stored"] = "stored"
    results: list[Lease] = Field(min_length=1)


class Probe(Message):
    """A no-op that an orchestrator sends through the broker, to see that what is sent comes back."""

    orchestrator_id: UUID
