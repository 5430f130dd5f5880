"""What an executor is, what it gets, and what it answers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol, Self

from pydantic import ValidationError

from agents.executors.enclosure import OPEN, Enclosure
from agents.permitted import Permitted
from agents.processes.keepers import Keeper, Starter
from agents.stopping import StopSignal
from common.errors import ErrorCode
from common.messages import ResultStatus, Stream

WriteOutput = Callable[[Stream, bytes], Awaitable[None]]
ProcessStarted = Callable[[Keeper], None]


ResolveSecret = Callable[[str], Awaitable[str]]


class ReportProgress(Protocol):
    def __call__(self, message: str, percent: float | None = None) -> None: ...


class SecretUnavailable(Exception):
    """A secret that work refers to cannot be had; `may_come`: another attempt may find it."""

    def __init__(self, name: str, reason: str, *, may_come: bool = False, is_too_short: bool = False) -> None:
        super().__init__(f"The secret {name!r} is not available: {reason}.")
        self.may_come = may_come
        self.is_too_short = is_too_short


def _nobody_notes(_keeper: Keeper) -> None:
    pass


def _not_reported(message: str, percent: float | None = None) -> None:
    pass


async def _no_secrets(name: str) -> str:
    raise SecretUnavailable(name, "there are no secrets here")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `cancelled` means that it was stopped because `context.stop` was ordered, for whatever
    reason. `retryable`: another attempt, if the task has one left, may end differently.
    """

    status: ResultStatus
    exit_code: int | None = None
    error_message: str | None = None
    error_code: ErrorCode | None = None
    retryable: bool = False

    @classmethod
    def failed(
        cls,
        message: str,
        *,
        code: ErrorCode | None = None,
        exit_code: int | None = None,
        retryable: bool = False,
    ) -> Self:
        return cls(ResultStatus.FAILED, exit_code, message, code, retryable)

    def with_texts(self, change: Callable[[str], str]) -> Self:
        """Return the same with every text changed."""
        return self if self.error_message is None else replace(self, error_message=change(self.error_message))

    def also_saying(self, text: str) -> Self:
        """Return the same with another sentence in its message."""
        return replace(self, error_message=" ".join(filter(None, (self.error_message, text))))

    @classmethod
    def without_secret(cls, error: SecretUnavailable) -> Self:
        """Work refers to a secret that cannot be had."""
        code = None if error.may_come else ErrorCode.SECRET_NOT_AVAILABLE
        return cls.failed(str(error), code=code, retryable=error.may_come)

    @classmethod
    def invalid_parameters(cls, error: ValidationError) -> Self:
        """The parameters are not those of the work type; repeating them helps nobody."""
        problems = (
            f"{'.'.join(map(str, problem['loc'])) or 'parameters'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        )
        return cls.failed("The parameters are not valid: " + "; ".join(problems), code=ErrorCode.INVALID_REQUEST)


@dataclass(frozen=True, slots=True)
class ExecutionContext:
    """What an executor may use.

    `workspace` is an empty directory of this attempt; it exists if the executor needs one. `inherited` are the agent's
    environment variables that work may see, `ids` those that tell a program what it runs for; nothing overrides the
    latter. `write` takes output and waits when there is too much of it. `stop` says when to stop, and
    `kill_grace_seconds` how long a program that is stopped for the executor's own reasons has to end. `keepers` start
    programs; `process_started` must be told the keeper of each as soon as it runs: it learns until when the lease
    holds, and the journal names it. `secret` looks up a secret of the host by its name, or raises `SecretUnavailable`.
    `enclosure` are the walls around every program that it starts. `progress` reports how far the work is: a message,
    and how much of it is done, of 100; it may be called at any rate. Programs write that to a file that `ids` names.
    """

    workspace: Path
    inherited: Mapping[str, str]
    ids: Mapping[str, str]
    write: WriteOutput
    stop: StopSignal
    kill_grace_seconds: float
    keepers: Starter
    process_started: ProcessStarted = _nobody_notes
    secret: ResolveSecret = _no_secrets
    enclosure: Enclosure = OPEN
    progress: ReportProgress = _not_reported


class Executor(Protocol):
    """Runs one work type. `needs_workspace`: whether it uses the directory of the attempt; otherwise none is made.

    One that needs a workspace does its work by programs of `context.keepers` alone. So an `OSError` that it raises
    before any of them may have run hands the work back untouched; any other end counts as an attempt.
    """

    kind: ClassVar[str]
    needs_workspace: ClassVar[bool]

    async def execute(self, work: Permitted, context: ExecutionContext) -> Outcome:
        """Run to the end and return the outcome, also for a failure.

        Whatever was started has ended when this returns. Once `context.stop` is ordered it returns soon, by `kill_at`
        and the moment that killing takes.
        """
        ...
