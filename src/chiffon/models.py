"""The answers that the client's calls return: the models of `common.rest`, under one name.

Answers are frozen, and fields that this version does not know are ignored.
"""

from common.rest.agents import Agent
from common.rest.approvals import Approval, ApprovalDetail, ApprovalPage, ApprovalState, Comment, Vote
from common.rest.artifacts import Artifact, ArtifactList, Upload
from common.rest.audit import AuditEvent, AuditPage, AuditResult
from common.rest.base import Answer
from common.rest.capacity import AgentCapacity, Capacity
from common.rest.dead_letters import (
    DeadLetter,
    DeadLetterDetail,
    DeadLetterKind,
    DeadLetterPage,
    DeadLetterState,
    Settled,
)
from common.rest.errors import ErrorResponse, FieldProblem
from common.rest.events import FINAL_EVENTS, Event, EventPage
from common.rest.fan_outs import FanOut, FanOutTask, SkippedAgent
from common.rest.identities import (
    Enrolled,
    Enrolment,
    Identity,
    NewToken,
    Permission,
    PrincipalKind,
    Role,
    Token,
    TokenPurpose,
    WhoAmI,
)
from common.rest.ops import Execution, Executions, LeaseHolder, QueueSnapshot, WaitingPool
from common.rest.repairs import Repair
from common.rest.runs import InnerStep, Run, RunPage, RunStep, RunStepStatus, RunSummary, StepKind
from common.rest.tasks import (
    BatchResult,
    CancelledTrace,
    DispatchResponse,
    OutputPage,
    TaskPage,
    TaskStatus,
    TaskSummary,
)
from common.rest.why import Blocker, BlockerKind, Why, WhyAgent

__all__ = [
    "FINAL_EVENTS",
    "Agent",
    "AgentCapacity",
    "Answer",
    "Approval",
    "ApprovalDetail",
    "ApprovalPage",
    "ApprovalState",
    "Artifact",
    "ArtifactList",
    "AuditEvent",
    "AuditPage",
    "AuditResult",
    "BatchResult",
    "Blocker",
    "BlockerKind",
    "CancelledTrace",
    "Capacity",
    "Comment",
    "DeadLetter",
    "DeadLetterDetail",
    "DeadLetterKind",
    "DeadLetterPage",
    "DeadLetterState",
    "DispatchResponse",
    "Enrolled",
    "Enrolment",
    "ErrorResponse",
    "Event",
    "EventPage",
    "Execution",
    "Executions",
    "FanOut",
    "FanOutTask",
    "FieldProblem",
    "Identity",
    "InnerStep",
    "LeaseHolder",
    "NewToken",
    "OutputPage",
    "Permission",
    "PrincipalKind",
    "QueueSnapshot",
    "Repair",
    "Role",
    "Run",
    "RunPage",
    "RunStep",
    "RunStepStatus",
    "RunSummary",
    "Settled",
    "SkippedAgent",
    "StepKind",
    "TaskPage",
    "TaskStatus",
    "TaskSummary",
    "Token",
    "TokenPurpose",
    "Upload",
    "Vote",
    "WaitingPool",
    "WhoAmI",
    "Why",
    "WhyAgent",
]
