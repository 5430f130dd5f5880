"""Run a program for an attempt, and say how its end counts."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from agents.executors.base import ExecutionContext, Outcome
from agents.executors.process import DRAIN_SECONDS, Command, Cut, Ending, Finished, run_process
from agents.processes.cannot_start import CannotStart
from common.errors import ErrorCode
from common.messages import ResultStatus
from common.work import ProgramLimits


@dataclass(frozen=True, slots=True)
class Program:
    """A program to run in the attempt's workspace. `env` is added to the agent's variables that all work may see.

    What is in the workspace belongs to the user as whom the program runs. `readable`: what it reads besides, for the
    sandbox, which shows it nothing else. `cwd`: where it begins; the workspace, when None.
    """

    argv: Sequence[str]
    limits: ProgramLimits
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    leaves_processes: bool = False
    readable: Sequence[Path] = ()
    cwd: Path | None = None

    async def run(self, context: ExecutionContext) -> Outcome:
        """Run it to its end, or until the stop is ordered. Raises `OSError` for what is wrong with the host."""
        own = await asyncio.to_thread(context.enclosure.prepare, context.workspace)
        command = Command(
            argv=self.argv,
            cwd=self.cwd or context.workspace,
            workspace=context.workspace,
            env={**context.inherited, **own, **self.env, **context.ids},
            stdin=self.stdin.encode(),
            max_duration_seconds=self.limits.max_duration_seconds,
            kill_grace_seconds=context.kill_grace_seconds,
            max_silence_seconds=self.limits.max_silence_seconds,
            enclosure=context.enclosure.showing(self.readable),
            leaves_processes=self.leaves_processes,
        )
        try:
            finished = await run_process(
                context.keepers, command, write=context.write, stop=context.stop, started=context.process_started
            )
        except CannotStart as error:
            return Outcome.failed(str(error), exit_code=error.exit_code)
        return outcome_of(finished, self.limits)


def outcome_of(finished: Finished, limits: ProgramLimits) -> Outcome:
    """Say how a program's end counts: only exit code 0 is success."""
    outcome = _outcome_of_end(finished, limits)
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


def _outcome_of_end(finished: Finished, limits: ProgramLimits) -> Outcome:
    match finished.ending:
        case Ending.STOPPED:
            return Outcome(ResultStatus.CANCELLED, exit_code=finished.exit_code)
        case Ending.TIMED_OUT:
            limit = f"it ran longer than max_duration_seconds ({limits.max_duration_seconds:g})"
            return _too_long(limit, finished)
        case Ending.SILENT:
            assert limits.max_silence_seconds is not None
            limit = f"it wrote nothing for longer than max_silence_seconds ({limits.max_silence_seconds:g})"
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
