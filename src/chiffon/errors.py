"""What can go wrong between a client and the orchestrator."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from common.errors import ChiffonError, Unavailable


class ApiError(ChiffonError):
    """The orchestrator answered with an error (RFC 9457 problem details).

    `status` is the HTTP status, `error_code` one of `common.errors.ErrorCode` or None when the answer did not come from
    the orchestrator, `problems` names the fields that were wrong.
    """

    def __init__(
        self,
        status: int,
        error_message: str,
        *,
        error_code: int | None = None,
        trace_id: str | None = None,
        problems: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(error_message)
        self.status = status
        self.error_code = error_code
        self.error_message = error_message
        self.trace_id = trace_id
        self.problems = tuple(problems)


class AnswerNotUnderstood(Unavailable):
    """The server that answered is no orchestrator, or its answer is of a version that this one cannot read."""

    def __init__(self, error: ValidationError) -> None:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join((error.title, *map(str, first["loc"])))
        super().__init__(f"The answer was not understood: {place}: {first['msg']}")


class ServerUnreachable(Unavailable):
    """No answer came from the orchestrator. Whether a dispatch was stored is unknown; send it again with its id."""

    def __init__(self, base_url: str, cause: BaseException | str) -> None:
        detail = str(cause) or type(cause).__name__
        super().__init__(f"Cannot reach the orchestrator at {base_url}: {detail}")
        self.base_url = base_url
