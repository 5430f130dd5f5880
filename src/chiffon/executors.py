"""What a module needs that adds a work type to an agent; see docs/how-to/add-an-executor.md."""

from agents.executors.base import ExecutionContext, Executor, Host, Outcome
from agents.executors.programs import Program
from common.errors import ErrorCode
from common.messages import ResultStatus, Stream
from common.work import Parameters, ProgramLimits, SecretReference

__all__ = [
    "ErrorCode",
    "ExecutionContext",
    "Executor",
    "Host",
    "Outcome",
    "Parameters",
    "Program",
    "ProgramLimits",
    "ResultStatus",
    "SecretReference",
    "Stream",
]
