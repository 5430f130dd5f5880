"""Things that tests need, with values that do not matter unless a test names them."""

from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

from common.messages import (
    AgentStatus,
    ArtifactPiece,
    Credit,
    GrantedTask,
    Lease,
    OutputChunk,
    Renew,
    Resources,
    ResultStatus,
    StatusUpdate,
    StepReport,
    StepStatus,
    Stream,
    WantFile,
    WorkRequest,
    WorkResult,
    WorkStatus,
)
from common.policy.model import Effect, Ruling
from common.protocol import ORCHESTRATOR, WorkResultEnvelope, WorkResults
from common.rest.identities import PrincipalKind, Role
from common.rest.jobs import Job, JobStatus
from common.unreadable import Unreadable
from orchestrator.identities.model import Caller, Provenance
from orchestrator.identities.permissions import permissions_of
from orchestrator.tasks.model import NewTask

# A token that an administrator made, and that its owner claimed.
OWN_TOKEN = Provenance("root", frozenset({"root"}), datetime(2026, 11, 1, tzinfo=UTC))
RULING = Ruling("anything", "1-test", Effect.WRITE)


def make_new_task(**values: Any) -> NewTask:
    given: dict[str, Any] = {
        "task_id": uuid4(),
        "request_id": uuid4(),
        "trace_id": uuid4(),
        "work_type": "echo",
        "agent_type": "infra",
        "parameters": {"message": "hello"},
        "hints": {},
        "priority": 3,
        "idempotent": False,
        "max_attempts": 1,
        "ruling": RULING,
    }
    return NewTask(**{**given, **values})


async def unknown(_: UUID) -> None:
    """Find an agent that neither enrolled nor registered."""


def make_caller(
    name: str = "ann",
    *roles: Role,
    kind: PrincipalKind = PrincipalKind.PERSON,
    principal_id: UUID | None = None,
    token: Provenance | None = None,
) -> Caller:
    given = frozenset(roles or [Role.OPERATOR])
    return Caller(
        principal_id or uuid4(), kind, name, given, permissions_of(given), token_id=uuid4(), token=token or OWN_TOKEN
    )


ANN = make_caller("ann")
BOB = make_caller("bob")


def make_job(**values: Any) -> Job:
    """Make a claimed job of the queue API."""
    given: dict[str, Any] = {
        "id": uuid4(),
        "type": "echo",
        "status": JobStatus.RUNNING,
        "priority": 0,
        "payload": {},
        "affinity_key": None,
        "claimed_by": "worker",
        "lease_expires_at": None,
        "attempt": 1,
        "max_attempts": 3,
        "max_output_bytes": 1024 * 1024,
        "trace_id": uuid4(),
        "request_id": uuid4(),
        "result_summary": None,
        "error_message": None,
        "artifacts_path": None,
        "created_at": datetime.now(UTC),
        "updated_at": datetime.now(UTC),
        "started_at": None,
        "finished_at": None,
    }
    return Job(**{**given, **values})


def make_credit(**values: Any) -> Credit:
    return Credit(**{"session": uuid4(), "number": 1, "limit": 4, **values})


def make_grant(work_type: str = "echo", **values: Any) -> GrantedTask:
    parameters = values.pop("parameters", {"message": "hello"})
    given: dict[str, Any] = {
        "claim_id": uuid4(),
        "work": WorkRequest(task_id=values.pop("task_id", uuid4()), work_type=work_type, parameters=parameters),
        "trace_id": uuid4(),
        "request_id": uuid4(),
        "attempt": 1,
        "lease_seconds": 60.0,
        "target": "infra",
    }
    return GrantedTask(**{**given, **values})


def make_result(task_id: UUID, agent_id: UUID, **values: Any) -> WorkResult:
    given: dict[str, Any] = {
        "task_id": task_id,
        "agent_id": agent_id,
        "status": ResultStatus.COMPLETED,
        "exit_code": 0,
        "duration_ms": 5,
        "attempt": 1,
        "output": "hello",
        "output_bytes": {"stdout": 5, "stderr": 0},
    }
    return WorkResult(**{**given, **values})


def make_results(agent_id: UUID, count: int = 2, **values: Any) -> WorkResults:
    """Return results of so many tasks that travel together."""
    results = [
        WorkResultEnvelope(
            from_agent=str(agent_id),
            to_agent=ORCHESTRATOR,
            trace_id=uuid4(),
            request_id=uuid4(),
            payload=make_result(uuid4(), agent_id, **values),
        )
        for _ in range(count)
    ]
    return WorkResults(agent_id=agent_id, results=results)


def make_chunk(number: int, text: str, *, offset: int, stream: Stream = Stream.STDOUT) -> OutputChunk:
    return OutputChunk(number=number, stream=stream, offset=offset, text=text)


def make_status(task_id: UUID, agent_id: UUID, *chunks: OutputChunk, **values: Any) -> WorkStatus:
    given: dict[str, Any] = {"attempt": 1, "progress": ""}
    return WorkStatus(task_id=task_id, agent_id=agent_id, chunks=list(chunks), **{**given, **values})


def make_step(position: int = 0, name: str = "analyze", **values: Any) -> StepReport:
    return StepReport(position=position, name=name, **{"status": StepStatus.IN_PROGRESS, **values})


def make_piece(content: bytes = b"hello", name: str = "dist/a.whl", **values: Any) -> ArtifactPiece:
    """Make the only piece of a file, or with `offset` and `data` one of several."""
    given: dict[str, Any] = {
        "type": "file",
        "sha256": sha256(content).hexdigest(),
        "size": len(content),
        "offset": 0,
        "data": b64encode(content).decode(),
    }
    return ArtifactPiece(name=name, **{**given, **values})


def make_want(agent_id: UUID, **values: Any) -> WantFile:
    given: dict[str, Any] = {"want_id": uuid4(), "task_id": uuid4(), "attempt": 1, "path": "in/data.csv"}
    return WantFile(agent_id=agent_id, **{**given, **values})


def make_renewal(task_id: UUID, agent_id: UUID, *, attempt: int = 1) -> Renew:
    return Renew(renewal_id=uuid4(), agent_id=agent_id, leases=[Lease(task_id=task_id, attempt=attempt)])


def make_unreadable(agent_id: UUID, body: bytes = b"{", **values: Any) -> Unreadable:
    given: dict[str, Any] = {
        "queue": f"work.infra.{agent_id}",
        "reason": "no JSON",
        "body": b64encode(body).decode(),
        "body_bytes": len(body),
    }
    return Unreadable(agent_id=agent_id, **{**given, **values})


def make_heartbeat(agent_id: UUID | None = None, **values: Any) -> StatusUpdate:
    given: dict[str, Any] = {
        "agent_id": agent_id or uuid4(),
        "agent_type": "infra",
        "status": AgentStatus.ONLINE,
        "hostname": "host-1",
        "version": "0.1.0",
        "work_types": ["echo"],
        "slots": 2,
        "resources": Resources(cpu_percent=1.5, memory_percent=20.0),
        "started_at": datetime(2026, 11, 22, 10, 0, tzinfo=UTC),
    }
    return StatusUpdate(**{**given, **values})
