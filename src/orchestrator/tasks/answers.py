"""Tasks as the REST API answers them, with the parameters that a reader may see."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from common.redaction.text import redacted
from common.redaction.values import NOTHING
from common.rest.tasks import DispatchResponse, TaskStatus, TaskSummary
from orchestrator.tasks.model import Identity, Task

# The longest text of parameters in a list, which may hold two hundred tasks; a task by itself is answered whole.
LONGEST_IN_LIST = 200
# So much more of a text is looked at, so that a token at its end is still known for one.
BEYOND = 1000
# Of a list or an object in a list, so many entries.
MOST_IN_LIST = 20


def dispatched(known: Identity) -> DispatchResponse:
    """Return the ids of a dispatch. Each dispatch is answered with it, and keywords take less time than attributes."""
    return DispatchResponse(
        trace_id=known.trace_id,
        request_id=known.request_id,
        task_id=known.task_id,
        status=known.status,
        approval_id=known.approval_id,
    )


def summary_of(task: Task) -> TaskSummary:
    """Return a task for a list, with its parameters shortened."""
    summary = TaskSummary.model_validate(task)
    return summary.model_copy(update={"parameters": _beginning(task.parameters), "result": None})


def status_of(task: Task, output: str) -> TaskStatus:
    """Return a task with the end of its output, and its parameters whole."""
    return TaskStatus.model_validate(task).model_copy(
        update={"output": output, "parameters": without_secrets(task.parameters)}
    )


def without_secrets(value: Any) -> Any:
    """Hide in every text what looks like a secret, as an agent does in output; names of fields stay as they are."""
    match value:
        case str():
            return redacted(value, NOTHING)
        case Mapping():
            return {name: without_secrets(inner) for name, inner in value.items()}
        case list():
            return [without_secrets(inner) for inner in value]
        case _:
            return value


def _beginning(value: Any) -> Any:
    """Return the first of every text, list and object, redacted, and say how much more there is."""
    match value:
        case str() if len(value) > LONGEST_IN_LIST:
            return f"{without_secrets(value[: LONGEST_IN_LIST + BEYOND])[:LONGEST_IN_LIST]}… ({len(value)} characters)"
        case Mapping():
            kept = {name: _beginning(inner) for name, inner in islice(value.items(), MOST_IN_LIST)}
            return kept if len(value) <= MOST_IN_LIST else {**kept, "…": f"{len(value) - MOST_IN_LIST} more"}
        case list():
            first = [_beginning(inner) for inner in value[:MOST_IN_LIST]]
            return first if len(value) <= MOST_IN_LIST else [*first, f"… {len(value) - MOST_IN_LIST} more"]
        case _:
            return without_secrets(value)
