"""Work as a caller describes it, to dispatch it or to ask about it."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, Field

from common.json_rules import Number, SafeObject, Truth, WholeNumber, check_line
from common.labels import Labels
from common.rest.base import Request
from common.work import WORK_TYPE_PATTERN, AgentType

LONGEST_KEY = 200
HIGHEST_LIMIT = 1000
LONGEST_WAIT = timedelta(days=30)


class Hints(Request):
    """Which agents may run the work, and which of them rather."""

    agent_type: AgentType | None = Field(default=None, description="Run on this type of agent instead of the usual.")
    agent_id: UUID | None = Field(default=None, description="Run on this agent and no other.")
    required_capabilities: Labels | None = Field(
        default=None,
        description="Run on agents that have all these labels: a number at least as large, the same text or truth "
        "value, all of a list. A list of names means each is true.",
        examples=[{"gpu_memory_gb": 24, "zone": "eu"}],
    )
    preferred: Labels | None = Field(
        default=None, description="Among those that may run it, rather agents that have more of these labels."
    )


WorkTypeName = Annotated[
    str, Field(pattern=WORK_TYPE_PATTERN, description="What kind of work it is.", examples=["shell_script", "echo"])
]
WorkParameters = Annotated[SafeObject, Field(description="What the work type needs to know.")]
WorkHints = Annotated[Hints, Field(description="Where the work should go.")]

# The terms of work: how often, when, after what and until when it may run. A dispatch has them, and so has a request
# for an approval beforehand.
Priority = Annotated[WholeNumber, Field(ge=1, le=5, description="5 critical, 4 high, 3 normal, 2 low, 1 background.")]
Idempotent = Annotated[Truth, Field(description="The work does no harm when it is started more than once.")]
MaxAttempts = Annotated[
    WholeNumber | None,
    Field(
        ge=1,
        le=20,
        description="How often it may start: by default once, or 3 times if idempotent. More than 1 holds also for "
        "work that is not marked idempotent.",
    ),
]
Key = Annotated[str, Field(min_length=1, max_length=LONGEST_KEY), AfterValidator(check_line)]
OrderingKey = Annotated[
    Key | None,
    Field(
        description="Tasks with the same key run one after another, in the order of their dispatch: the next starts "
        "when the one before has ended, with all its retries, whatever became of it.",
        examples=["deploy/web-1"],
    ),
]
ConcurrencyKey = Annotated[
    Key | None,
    Field(
        description="Of the tasks with the same key at most `concurrency_limit` run at a time, the higher priority "
        "first, the older first among equals.",
        examples=["registry-pulls"],
    ),
]
ConcurrencyLimit = Annotated[
    WholeNumber | None,
    Field(
        ge=1,
        le=HIGHEST_LIMIT,
        description="How many tasks of `concurrency_key` may run at a time; required with it and only allowed with it. "
        "The limit of the newest dispatch holds for all that wait.",
        examples=[4],
    ),
]
ExpiresAfterSeconds = Annotated[
    Number | None,
    Field(
        gt=0,
        le=LONGEST_WAIT.total_seconds(),
        allow_inf_nan=False,
        description="The limit on waiting: a task that waits this long after its dispatch is cancelled (error 5001). "
        "It says nothing about how long a task may run.",
        examples=[3600],
    ),
]
