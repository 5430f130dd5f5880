"""A work type that brings itself to an end, whatever becomes of its lease and its agent."""

from typing import ClassVar

from agents.attempts.stopping import StopSignal
from agents.executors.base import ExecutionContext, Executor, Outcome
from agents.executors.process import Command, run_process
from common.messages import ResultStatus, Stream
from common.work import Parameters


class OwningParameters(Parameters):
    """Wait for a stop, and take so long to put everything in order."""

    seconds: float = 2.0


class Owning(Executor[OwningParameters]):
    kind: ClassVar[str] = "owning"
    parameters = OwningParameters
    needs_workspace: ClassVar[bool] = True
    watches_stop: ClassVar[bool] = True
    owns_its_end: ClassVar[bool] = True

    async def carry_out(self, parameters: OwningParameters, context: ExecutionContext) -> Outcome:
        await context.write(Stream.STDOUT, b"begun\n")
        await context.stop.wait()
        command = Command(["/bin/sleep", f"{parameters.seconds}"], context.workspace, {}, b"", 60.0, 1.0)
        finished = await run_process(
            context.lasting, command, write=context.write, stop=StopSignal(), started=context.process_started
        )
        return Outcome(ResultStatus.FAILED, exit_code=finished.exit_code, error_message="Taken back.")
