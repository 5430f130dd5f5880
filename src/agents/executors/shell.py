"""Run a program or a script."""

import asyncio
from pathlib import Path
from typing import ClassVar

from agents.executors.base import ExecutionContext, Executor, Outcome
from agents.executors.programs import Program
from common.work import ShellScriptParameters

SCRIPT_FILE = "script"


class ShellExecutor(Executor[ShellScriptParameters]):
    kind: ClassVar[str] = "shell_script"
    parameters = ShellScriptParameters
    needs_workspace: ClassVar[bool] = True
    watches_stop: ClassVar[bool] = True

    async def carry_out(self, parameters: ShellScriptParameters, context: ExecutionContext) -> Outcome:
        program = Program(
            env={name: await context.text_of(value) for name, value in parameters.env.items()},
            stdin=await context.text_of(parameters.stdin),
            argv=await _argv(parameters, context.workspace),
            limits=parameters,
            leaves_processes=parameters.leaves_processes,
        )
        return await program.run(context)


async def _argv(parameters: ShellScriptParameters, workspace: Path) -> list[str]:
    if parameters.argv is not None:
        return parameters.argv
    assert parameters.script is not None
    path = workspace / SCRIPT_FILE
    await asyncio.to_thread(path.write_text, parameters.script, encoding="utf-8", newline="")
    return [parameters.shell, str(path)]
