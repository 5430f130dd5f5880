"""Run a program or a script."""

import asyncio
import signal
from pathlib import Path
from typing import ClassVar, assert_never

from pydantic import ValidationError

from agents.executors.base import ExecutionContext, Outcome, SecretUnavailable
from agents.executors.process import DRAIN_SECONDS, Command, Cut, Ending, Finished, run_process
from agents.permitted import Permitted
from agents.processes.cannot_start import CannotStart
from common.errors import ErrorCode
from common.messages import ResultStatus
from common.work import SecretReference, ShellScriptParameters

SCRIPT_FILE = "script"


class ShellExecutor:
    kind: ClassVar[str] = "shell_script"
    needs_workspace: ClassVar[bool] = True

    async def execute(self, work: Permitted, context: ExecutionContext) -> Outcome:
        try:
            parameters = ShellScriptParameters.model_validate(work.parameters)
        except ValidationError as error:
            return Outcome.invalid_parameters(error)
        try:
            env = {name: await _text(value, context) for name, value in parameters.env.items()}
            stdin = await _text(parameters.stdin, context)
        except SecretUnavailable as error:
            return Outcome.without_secret(error) if context.stop.reason is None else Outcome(ResultStatus.CANCELLED)
        argv = await _argv(parameters, context.workspace)
        own = await asyncio.to_thread(context.enclosure.prepare, context.workspace)
        command = Command(
            argv=argv,
            cwd=context.workspace,
            env={**context.inherited, **own, **env, **context.ids},
            stdin=stdin.encode(),
            max_duration_seconds=parameters.max_duration_seconds,
            kill_grace_seconds=context.kill_grace_seconds,
            max_silence_seconds=parameters.max_silence_seconds,
            enclosure=context.enclosure,
            leaves_processes=parameters.leaves_processes,
        )
        try:
            finished = await run_process(
                context.keepers, command, write=context.write, stop=context.stop, started=context.process_started
            )
        except CannotStart as error:
            return Outcome.failed(str(error), exit_code=error.exit_code)
        return outcome_of(finished, parameters)


def outcome_of(finished: Finished, parameters: ShellScriptParameters) -> Outcome:
    """Say how a program's end counts: only exit code 0 is success."""
    outcome = _outcome_of_end(finished, parameters)
    return outcome if finished.cut is None else outcome.also_saying(f"Its output was cut: {_why_cut(finished)}.")


def _why_cut(finished: Finished) -> str:
    after_its_end = f"{DRAIN_SECONDS:g} s after its end"
    match finished.cut:
        case Cut.HELD if finished.killed:
            return f"{finished.killed} of the processes that it had started still ran {after_its_end}, and were killed"
        case Cut.HELD:
            return f"another process still held it {after_its_end}, and was left running"
        case _:
            return "it could not be read to its end in the time that the work had"


def _outcome_of_end(finished: Finished, parameters: ShellScriptParameters) -> Outcome:
    match finished.ending:
        case Ending.STOPPED:
            return Outcome(ResultStatus.CANCELLED, exit_code=finished.exit_code)
        case Ending.TIMED_OUT:
            limit = f"it ran longer than max_duration_seconds ({parameters.max_duration_seconds:g})"
            return _too_long(limit, finished)
        case Ending.SILENT:
            assert parameters.max_silence_seconds is not None
            limit = f"it wrote nothing for longer than max_silence_seconds ({parameters.max_silence_seconds:g})"
            return _too_long(limit, finished)
        case Ending.EXITED:
            return _outcome_of_exit(finished)
        case _:
            assert_never(finished.ending)


def _too_long(limit: str, finished: Finished) -> Outcome:
    return Outcome.failed(
        f"The program was stopped: {limit}.", code=ErrorCode.TIMEOUT, exit_code=finished.exit_code, retryable=True
    )


def _outcome_of_exit(finished: Finished) -> Outcome:
    if finished.returncode == 0:
        return Outcome(ResultStatus.COMPLETED, exit_code=0)
    if finished.returncode > 0:
        message = f"The program ended with exit code {finished.returncode}."
    else:
        message = f"The program was ended by signal {_signal_name(-finished.returncode)}."
    return Outcome.failed(message, exit_code=finished.exit_code, retryable=True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(number)


async def _text(given: str | SecretReference, context: ExecutionContext) -> str:
    return given if isinstance(given, str) else await context.secret(given.secret)


async def _argv(parameters: ShellScriptParameters, workspace: Path) -> list[str]:
    if parameters.argv is not None:
        return parameters.argv
    assert parameters.script is not None
    path = workspace / SCRIPT_FILE
    await asyncio.to_thread(path.write_text, parameters.script, encoding="utf-8", newline="")
    return [parameters.shell, str(path)]
