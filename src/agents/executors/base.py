"""What an executor is, what it gets, and what it answers."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

from pydantic import BaseModel, JsonValue, ValidationError

from agents.attempts.stopping import StopSignal
from agents.executors.enclosure import OPEN, Enclosure
from agents.executors.permitted import Permitted
from agents.processes.keepers import Keeper, Starter
from common.errors import ErrorCode
from common.messages import ResultStatus, Stream
from common.redaction.json_values import hidden_in
from common.result import canonical_result
from common.work import SecretReference

P = TypeVar("P", bound=BaseModel)

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
    reason. `retryable`: another attempt, if the task has one left, may end differently. `result` is what the work
    returned: JSON, at most `MAX_RESULT_BYTES` of it.
    """

    status: ResultStatus
    exit_code: int | None = None
    error_message: str | None = None
    error_code: ErrorCode | None = None
    retryable: bool = False
    result: JsonValue = None

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

    def leaving(self, hide: Callable[[str], str]) -> Self:
        """Return the same as it leaves this host: `hide` takes the secrets out of every text.

        With a result that cannot be kept, work that was completed has failed, and says why.
        """
        message = None if self.error_message is None else hide(self.error_message)
        if self.result is None:
            return self if message is None else replace(self, error_message=message)
        try:
            result = canonical_result(hidden_in(canonical_result(self.result), hide))
            return replace(self, error_message=message, result=result)
        except ValueError as problem:
            reason = f"The result of the work {problem}."
        if self.status is ResultStatus.COMPLETED:
            return type(self).failed(reason, exit_code=self.exit_code)
        return replace(self, error_message=message, result=None).also_saying(reason)

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

    async def text_of(self, given: str | SecretReference) -> str:
        """Return a text, or the value of the secret that stands in its place. Raises `SecretUnavailable`."""
        return given if isinstance(given, str) else await self.secret(given.secret)


@dataclass(frozen=True, slots=True)
class Host:
    """The settings of an agent from which its executors see what they may offer."""

    playbooks_dir: Path | None = None


class Executor(ABC, Generic[P]):
    """Runs one work type: the seam for work of other kinds; see docs/how-to/add-an-executor.md.

    `kind` is the name of the work type, `parameters` the model of its parameters, whose docstring and JSON Schema
    callers are shown. `needs_workspace`: whether it uses the directory of the attempt; otherwise none is made.
    `watches_stop`: whether it obeys `context.stop` itself, like all that run programs; otherwise its coroutine is
    cancelled when the stop is ordered.

    One that needs a workspace does its work by programs of `context.keepers` alone. So an `OSError` that it raises
    before any of them may have run hands the work back untouched; any other end counts as an attempt.
    """

    kind: ClassVar[str]
    parameters: ClassVar[type[BaseModel]]
    needs_workspace: ClassVar[bool] = False
    watches_stop: ClassVar[bool] = False

    @classmethod
    def offer(cls, _host: Host) -> Self | None:
        """Return the executor if this host can run such work, else None; asked once, at the agent's start."""
        return cls()

    def labels(self) -> Mapping[str, Any]:
        """Return what the agent announces that it has because of this executor, for work that asks for it."""
        return {}

    async def execute(self, work: Permitted, context: ExecutionContext) -> Outcome:
        """Check the parameters and carry the work out to its end; return the outcome, also for a failure.

        Whatever was started has ended when this returns. Once `context.stop` is ordered it returns soon, by `kill_at`
        and the moment that killing takes.
        """
        try:
            parameters = cast("P", self.parameters.model_validate(work.parameters))
        except ValidationError as error:
            return Outcome.invalid_parameters(error)
        try:
            if self.watches_stop:
                return await self.carry_out(parameters, context)
            return await _until_stopped(self.carry_out(parameters, context), context.stop)
        except SecretUnavailable as error:
            return Outcome.without_secret(error) if context.stop.reason is None else Outcome(ResultStatus.CANCELLED)

    @abstractmethod
    async def carry_out(self, parameters: P, context: ExecutionContext) -> Outcome:
        """Do the work; called by `execute` only. What it raises is a failure of the executor, told by its name only.

        `SecretUnavailable` and `OSError`, for what the host lacks, are told in words.
        """


async def _until_stopped(work: Coroutine[Any, Any, Outcome], stop: StopSignal) -> Outcome:
    """Return what work returns; cancel it when the stop is ordered."""
    working, ordered = asyncio.create_task(work, name="executor"), asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({working, ordered}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
            if working.cancelled():
                return Outcome(ResultStatus.CANCELLED)
        return working.result()
    finally:
        working.cancel()
        ordered.cancel()
        await asyncio.gather(working, ordered, return_exceptions=True)
