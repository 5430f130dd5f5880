"""What an executor is, what it gets, and what it answers."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

from pydantic import BaseModel, JsonValue, ValidationError

from agents.attempts.steps import ReportStep
from agents.attempts.stopping import StopSignal
from agents.executors.enclosure import OPEN, Enclosure
from agents.executors.permitted import Permitted
from agents.processes.keepers import Keeper, Launch, Starter
from common.artifacts import FILE_TYPE
from common.errors import ErrorCode
from common.messages import ResultStatus, StepStatus, Stream
from common.redaction.json_values import hidden_in
from common.result import canonical_result
from common.work import FileReference, SecretReference, WithFiles

P = TypeVar("P", bound=BaseModel)
T = TypeVar("T")

WriteOutput = Callable[[Stream, bytes], Awaitable[None]]
ProcessStarted = Callable[[Keeper], None]


ResolveSecret = Callable[[str], Awaitable[str]]
# Hides values, from then on, in all that leaves this host.
Hide = Callable[..., None]


# How many files that were not kept a message names.
MOST_NAMED = 5


class ReportProgress(Protocol):
    def __call__(self, message: str, percent: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that is kept: its name, and the SHA-256 and size of what leaves this host, without the secrets in it."""

    name: str
    sha256: str
    size: int


class NotKept(Exception):
    """A file cannot be kept; the text says why, to stand behind its name."""


class FilesUnavailable(Exception):
    """The files that work gets cannot be had, or none can be kept here; `may_come`: another attempt may get them."""

    def __init__(self, reason: str, *, may_come: bool = False) -> None:
        super().__init__(reason)
        self.may_come = may_come


class KeepFile(Protocol):
    async def __call__(self, name: str, path: Path, type: str = FILE_TYPE) -> Kept:
        """Keep a file as it is now, as an artifact of the attempt, and return when it is on disk.

        The work may change or remove it afterwards. Raises `NotKept`.
        """
        ...


class Transfer(Protocol):
    """Brings files to an attempt, and keeps those that it leaves."""

    async def bring(
        self, files: Mapping[str, FileReference], context: "ExecutionContext", *, keeps: bool
    ) -> Mapping[str, Path]:
        """Put files into the workspace and return where they are; `keeps`: whether some are to be kept afterwards.

        Raises `FilesUnavailable`, and `OSError` for what is wrong with the host.
        """
        ...

    async def collect(self, patterns: Sequence[str], context: "ExecutionContext") -> Sequence[str]:
        """Keep what the patterns name in the workspace; return what is not kept, and why, in a few words each."""
        ...


class SecretUnavailable(Exception):
    """A secret that work refers to cannot be had; `may_come`: another attempt may find it."""

    def __init__(self, name: str, reason: str, *, may_come: bool = False, is_too_short: bool = False) -> None:
        super().__init__(f"The secret {name!r} is not available: {reason}.")
        self.may_come = may_come
        self.is_too_short = is_too_short


def _nobody_notes(_keeper: Keeper) -> None:
    pass


def _nothing_hidden(*_values: str) -> None:
    pass


def _not_reported(message: str, percent: float | None = None) -> None:
    pass


async def _no_secrets(name: str) -> str:
    raise SecretUnavailable(name, "there are no secrets here")


async def _kept_nowhere(name: str, path: Path, type: str = FILE_TYPE) -> Kept:
    raise NotKept("nothing here keeps files")


def _steps_not_reported(
    position: int,
    name: str,
    status: StepStatus,
    message: str = "",
    started_at: datetime | None = None,
    finished_at: datetime | None = None,
) -> None:
    pass


class _NoTransfer:
    async def bring(
        self, files: Mapping[str, FileReference], context: "ExecutionContext", *, keeps: bool
    ) -> Mapping[str, Path]:
        if files or keeps:
            raise FilesUnavailable("Work gets no files here, and none are kept: use neither 'files' nor 'artifacts'.")
        return {}

    async def collect(self, patterns: Sequence[str], context: "ExecutionContext") -> Sequence[str]:
        return []


class _NothingLasts:
    """For an executor that did not say that it owns its end."""

    async def start(self, launch: Launch, files: Sequence[int]) -> Keeper:
        raise RuntimeError("only an executor with owns_its_end starts programs that outlive its lease")


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
    `hide` takes values that are secret here and came from elsewhere than `secret`; `hidden` returns a text as it leaves
    this host, without any of them. `step` reports an inner step. `keep` keeps a file; `files` are those that the work
    got, in the workspace, by the names that it gave them. `lasting` starts programs that no end of the lease kills;
    only an executor that owns its end has it.
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
    hide: Hide = _nothing_hidden
    hidden: Callable[[str], str] = str
    step: ReportStep = _steps_not_reported
    keep: KeepFile = _kept_nowhere
    transfer: Transfer = field(default_factory=_NoTransfer)
    files: Mapping[str, Path] = field(default_factory=dict)
    lasting: Starter = field(default_factory=_NothingLasts)

    async def text_of(self, given: str | SecretReference) -> str:
        """Return a text, or the value of the secret that stands in its place. Raises `SecretUnavailable`."""
        return given if isinstance(given, str) else await self.secret(given.secret)


@dataclass(frozen=True, slots=True)
class Host:
    """The settings of an agent from which its executors see what they may offer."""

    playbooks_dir: Path | None = None
    cwd_allow: tuple[Path, ...] = ()
    compose_root: Path | None = None
    state_dir: Path | None = None


class Executor(ABC, Generic[P]):
    """Runs one work type: the seam for work of other kinds; see docs/how-to/add-an-executor.md.

    `kind` is the name of the work type, `parameters` the model of its parameters, whose docstring and JSON Schema
    callers are shown. `needs_workspace`: whether it uses the directory of the attempt; otherwise none is made.
    `watches_stop`: whether it obeys `context.stop` itself, like all that run programs; otherwise its coroutine is
    cancelled when the stop is ordered. `owns_its_end`: once begun, it brings its work to an end by itself, whatever
    becomes of the lease: an order to stop asks it for that end, and nothing kills what it starts by `context.lasting`.

    Parameters with `WithFiles` as their base get files and have some kept; this needs a workspace.

    One that needs a workspace does its work by programs of `context.keepers` alone. So an `OSError` that it raises
    before any of them may have run hands the work back untouched; any other end counts as an attempt.
    """

    kind: ClassVar[str]
    parameters: ClassVar[type[BaseModel]]
    needs_workspace: ClassVar[bool] = False
    watches_stop: ClassVar[bool] = False
    owns_its_end: ClassVar[bool] = False

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
            if isinstance(parameters, WithFiles) and (parameters.files or parameters.artifacts):
                return await self._execute_with_files(parameters, context)
            return await self._until_its_end(parameters, context)
        except SecretUnavailable as error:
            return Outcome.without_secret(error) if context.stop.reason is None else Outcome(ResultStatus.CANCELLED)

    async def _execute_with_files(self, parameters: WithFiles, context: ExecutionContext) -> Outcome:
        """Bring the files, carry the work out, and keep what it leaves, also when it has failed."""
        bringing = context.transfer.bring(parameters.files, context, keeps=bool(parameters.artifacts))
        try:
            files = await _until_stopped(bringing, context.stop)
        except FilesUnavailable as problem:
            code = None if problem.may_come else ErrorCode.INVALID_REQUEST
            return Outcome.failed(str(problem), code=code, retryable=problem.may_come)
        if files is None:
            return Outcome(ResultStatus.CANCELLED)
        outcome = await self._until_its_end(cast("P", parameters), replace(context, files=files))
        if not parameters.artifacts:
            return outcome
        if context.stop.reason is not None:
            return outcome.also_saying("None of its files were kept, because it was stopped.")
        problems = await context.transfer.collect(parameters.artifacts, context)
        return outcome.also_saying(_not_kept(problems)) if problems else outcome

    async def _until_its_end(self, parameters: P, context: ExecutionContext) -> Outcome:
        if self.watches_stop:
            return await self.carry_out(parameters, context)
        outcome = await _until_stopped(self.carry_out(parameters, context), context.stop)
        return Outcome(ResultStatus.CANCELLED) if outcome is None else outcome

    @abstractmethod
    async def carry_out(self, parameters: P, context: ExecutionContext) -> Outcome:
        """Do the work; called by `execute` only. What it raises is a failure of the executor, told by its name only.

        `SecretUnavailable` and `OSError`, for what the host lacks, are told in words.
        """


def _not_kept(problems: Sequence[str]) -> str:
    more = len(problems) - MOST_NAMED
    return f"Not kept: {'; '.join(problems[:MOST_NAMED])}{f'; and {more} more' if more > 0 else ''}."


async def _until_stopped(work: Coroutine[Any, Any, T], stop: StopSignal) -> T | None:
    """Return what work returns; cancel it when the stop is ordered, and return None."""
    working, ordered = asyncio.create_task(work, name="executor"), asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({working, ordered}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
            if working.cancelled():
                return None
        return working.result()
    finally:
        working.cancel()
        ordered.cancel()
        await asyncio.gather(working, ordered, return_exceptions=True)
