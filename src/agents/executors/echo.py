"""Return a text unchanged: proves the whole path and measures its cost."""

from typing import ClassVar

from pydantic import ValidationError

from agents.executors.base import ExecutionContext, Outcome
from agents.permitted import Permitted
from common.messages import ResultStatus, Stream
from common.work import EchoParameters


class EchoExecutor:
    kind: ClassVar[str] = "echo"
    needs_workspace: ClassVar[bool] = False

    async def execute(self, work: Permitted, context: ExecutionContext) -> Outcome:
        try:
            parameters = EchoParameters.model_validate(work.parameters)
        except ValidationError as error:
            return Outcome.invalid_parameters(error)
        await context.write(Stream.STDOUT, parameters.message.encode())
        return Outcome(ResultStatus.COMPLETED)
