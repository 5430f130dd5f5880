"""Run a program or a script."""

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from agents.executors.base import ExecutionContext, Executor, Host, Outcome
from agents.executors.enclosure import Enclosure
from agents.executors.programs import Program
from common.errors import ErrorCode
from common.work import SCRIPT_FILE, ShellScriptParameters


class NotAllowed(Exception):
    """The work may not run in the directory that it names; the message says why."""


class ShellExecutor(Executor[ShellScriptParameters]):
    kind: ClassVar[str] = "shell_script"
    parameters = ShellScriptParameters
    needs_workspace: ClassVar[bool] = True
    watches_stop: ClassVar[bool] = True

    def __init__(self, cwd_allow: Sequence[Path] = ()) -> None:
        self._cwd_allow = cwd_allow

    @classmethod
    def offer(cls, host: Host) -> Self:
        return cls(host.cwd_allow)

    async def carry_out(self, parameters: ShellScriptParameters, context: ExecutionContext) -> Outcome:
        try:
            cwd = await asyncio.to_thread(self._directory, parameters.cwd, context)
        except NotAllowed as problem:
            return Outcome.failed(f"cwd: {problem}.", code=ErrorCode.INVALID_REQUEST)
        program = Program(
            env={name: await context.text_of(value) for name, value in parameters.env.items()},
            stdin=await context.text_of(parameters.stdin),
            argv=await _argv(parameters, context.workspace),
            limits=parameters,
            leaves_processes=parameters.leaves_processes,
            cwd=cwd,
        )
        return await program.run(context)

    def _directory(self, named: str | None, context: ExecutionContext) -> Path | None:
        """Return where the program begins; None for the workspace. Raises `NotAllowed`. Blocking."""
        if named is None:
            return None
        if not named.startswith("/"):
            return _made(context.workspace, named, context.enclosure)
        try:
            real = Path(named).resolve()
            is_there = real.is_dir()
        except (OSError, RuntimeError) as problem:  # a loop of links, a name that is too long
            raise NotAllowed(f"{named!r} cannot be opened: {problem}") from None
        if not any(real.is_relative_to(place.resolve()) for place in self._cwd_allow):
            raise NotAllowed(f"{named!r} is in no directory that the cwd_allow of this agent names")
        if not is_there:
            raise NotAllowed(f"there is no directory {named!r} on this host")
        return _shown(Path(named), context.enclosure) if context.enclosure.is_sandboxed else real


def _made(workspace: Path, named: str, enclosure: Enclosure) -> Path:
    """Make a directory in the workspace, in which no program has run yet, for the user of the program."""
    folder = workspace
    for part in Path(named).parts:
        folder = folder / part
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError:
            raise NotAllowed(f"{named!r} is not possible: the workspace has a file of that name") from None
        except OSError as problem:
            if problem.errno != errno.ENAMETOOLONG:
                raise
            raise NotAllowed(f"{named!r} is not possible: a name in it is too long") from None
        if enclosure.user is not None:
            os.chown(folder, enclosure.user.uid, enclosure.user.gid)
    return folder


def _shown(named: Path, enclosure: Enclosure) -> Path:
    """Return a directory if the sandbox shows it, by that name."""
    sandbox = enclosure.sandbox
    assert sandbox is not None
    if not any(named.is_relative_to(place) for place in (*sandbox.readable, *sandbox.writable)):
        raise NotAllowed(
            f"the sandbox shows nothing of {str(named)!r}, which is neither in sandbox_readable nor in "
            "sandbox_writable of this agent"
        )
    return named


async def _argv(parameters: ShellScriptParameters, workspace: Path) -> list[str]:
    if parameters.argv is not None:
        return parameters.argv
    assert parameters.script is not None
    path = workspace / SCRIPT_FILE
    await asyncio.to_thread(path.write_text, parameters.script, encoding="utf-8", newline="")
    return [parameters.shell, str(path)]
