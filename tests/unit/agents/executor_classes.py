"""Classes that settings may name as executors, most of them by mistake."""

from typing import Any, ClassVar

from pydantic import Field, create_model

from agents.executors.base import ExecutionContext, Executor, Host, Outcome
from common.messages import ResultStatus
from common.work import Parameters


class Nothing(Executor[Parameters]):
    """Does nothing, well."""

    kind = "nothing"
    parameters = Parameters

    async def carry_out(self, parameters: Parameters, context: ExecutionContext) -> Outcome:
        return Outcome(ResultStatus.COMPLETED)


class Labelled(Nothing):
    kind = "labelled"

    def labels(self) -> dict[str, Any]:
        return {"zone": "executor", "renders": True}


class NotHere(Nothing):
    kind = "not_here"

    @classmethod
    def offer(cls, _host: Host) -> None:
        return None


class Unfinished(Executor[Parameters]):
    kind = "unfinished"
    parameters = Parameters


class BadName(Nothing):
    kind = "Bad-Name"


class Second(Nothing):
    kind = "echo"


class Again(Nothing):
    kind = "nothing"


class NoModel(Nothing):
    kind = "no_model"
    parameters = dict  # type: ignore[assignment]


class Huge(Nothing):
    kind = "huge"
    parameters: ClassVar[type[Parameters]] = create_model(
        "Huge", __base__=Parameters, text=(str, Field("", description="x" * 20_000))
    )


class BadLabel(Nothing):
    kind = "bad_label"

    def labels(self) -> dict[str, Any]:
        return {"not a name": 1}


class Needy(Nothing):
    kind = "needy"

    def __init__(self, needed: Any) -> None:
        self.needed = needed


not_a_class = Nothing()
