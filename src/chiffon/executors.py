"""What a module needs that adds a work type to an agent; see docs/how-to/add-an-executor.md."""

from agents.executors.base import ExecutionContext, Executor, Host, Kept, NotKept, Outcome
from agents.executors.programs import Program
from common.errors import ErrorCode
from common.messages import ResultStatus, StepStatus, Stream
from common.work import Parameters, ProgramLimits, SecretReference, WithFiles

__all__ = [
    "ErrorCode",
    "ExecutionContext",
    "Executor",
    "Host",
    "Kept",
    "NotKept",
    "Outcome",
    "Parameters",
    "Program",
    "ProgramLimits",
    "ResultStatus",
    "SecretReference",
    "StepStatus",
    "Stream",
    "WithFiles",
]
