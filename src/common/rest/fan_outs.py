"""The same work on each of several agents: which agents, at what pace, and how it stands."""

import re
from collections import Counter
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from common.json_rules import check_line
from common.labels import Labels
from common.lifecycle import Status
from common.messages import LONGEST_NAME
from common.rest.base import Answer, Request
from common.rest.events import Event

MOST_AGENTS = 1000
BATCH_PATTERN = r"(100|[1-9][0-9]?)%"

AgentName = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME), AfterValidator(check_line)]


def _batch(value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_AGENTS
    if is_number or (isinstance(value, str) and re.fullmatch(BATCH_PATTERN, value)):
        return value
    raise PydanticCustomError("batch", f"must be a number from 1 to {MOST_AGENTS}, or a percentage from 1% to 100%")


Batch = Annotated[
    int | str,
    BeforeValidator(_batch),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_AGENTS},
                {"type": "string", "pattern": f"^{BATCH_PATTERN}$"},
            ]
        }
    ),
]


class On(Request):
    """Which agents of the pool get a task each: exactly one of these."""

    all: bool = Field(default=False, description="Every agent that is not offline and can run the work.")
    labels: Labels | None = Field(
        default=None, description="Those of them that have all these labels.", examples=[{"zone": "eu"}]
    )
    agents: list[AgentName] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_AGENTS,
        description="These, by name or id, also while they are offline.",
        examples=[["web-1", "web-2"]],
    )

    @model_validator(mode="after")
    def _says_it_once(self) -> Self:
        if self.all + (self.labels is not None) + (self.agents is not None) != 1:
            raise ValueError("give exactly one of 'all', 'labels' and 'agents'")
        return self


class FanOutTask(Answer):
    """The task of one agent of a fan-out."""

    agent_id: UUID = Field(description="The agent.")
    agent_name: str | None = Field(default=None, description="Its name.")
    task_id: UUID = Field(description="Its task.")
    status: Status = Field(description="Where the task stands.")
    approval_id: UUID | None = Field(default=None, description="The approval that lets it run, if it needs one.")
    exit_code: int | None = Field(default=None, description="The exit status of its program, if it ran one.")
    error_message: str | None = Field(default=None, description="Why it failed or was cancelled.")
    error_code: int | None = Field(default=None, description="5001 timeout, 5002 agent lost or stopped, …")
    duration_ms: int | None = Field(default=None, description="How long the last attempt ran.")
    result: Any = Field(default=None, description="What its executor returned.")
    result_left_out: bool = Field(
        default=False,
        description="The results before it are 8 MiB already: what it returned is in `GET /api/v1/status/{task_id}`.",
    )


class SkippedAgent(Answer):
    """An agent that the selector means and that gets no task."""

    name: str = Field(description="Its name.")
    reason: str = Field(description="Why it gets none.")


class FanOut(Answer):
    """A fan-out as it stands."""

    fan_out_id: UUID = Field(description="The id that the caller chose as `task_id`.")
    trace_id: UUID = Field(description="Correlates its tasks.")
    work_type: str = Field(description="What kind of work it is.")
    name: str = Field(default="", description="What the caller called it.")
    status: Status = Field(
        description="running, until all tasks have ended; then failed if any failed, cancelled if any was, or completed"
    )
    counts: dict[str, int] = Field(description="How many of its tasks stand where.")
    tasks: list[FanOutTask] = Field(description="One for each agent.")
    created_at: datetime = Field(description="When it was dispatched.")
    finished_at: datetime | None = Field(default=None, description="When the last of its tasks ended.")


# What an event says of where its task stands.
STATUS_AFTER = {
    "task.claimed": Status.RUNNING,
    "task.requeued": Status.PENDING,
    "task.completed": Status.COMPLETED,
    "task.failed": Status.FAILED,
    "task.cancelled": Status.CANCELLED,
}


def is_over(found: FanOut) -> bool:
    """Say whether every task of a fan-out has ended."""
    return all(task.status.is_final for task in found.tasks)


def after_event(found: FanOut, event: Event) -> FanOut | None:
    """Return a fan-out as it stands after an event; None when that changes nothing of it."""
    status = STATUS_AFTER.get(event.kind)
    if status is None or not any(task.task_id == event.task_id and task.status != status for task in found.tasks):
        return None
    tasks = [
        task.model_copy(update={"status": status}) if task.task_id == event.task_id else task for task in found.tasks
    ]
    return found.model_copy(update={"tasks": tasks, "counts": Counter(task.status.value for task in tasks)})
