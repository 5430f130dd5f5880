"""Return a text unchanged: proves the whole path and measures its cost."""

from typing import ClassVar

from agents.executors.base import ExecutionContext, Executor, Outcome
from common.messages import ResultStatus, Stream
from common.work import EchoParameters


class EchoExecutor(Executor[EchoParameters]):
    kind: ClassVar[str] = "echo"
    parameters = EchoParameters
    watches_stop: ClassVar[bool] = True  # it is over at once

    async def carry_out(self, parameters: EchoParameters, context: ExecutionContext) -> Outcome:
        await context.write(Stream.STDOUT, parameters.message.encode())
        return Outcome(ResultStatus.COMPLETED)
