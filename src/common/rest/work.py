"""Work as a caller describes it, to dispatch it or to ask about it."""

from typing import Annotated
from uuid import UUID

from pydantic import Field

from common.json_rules import SafeObject
from common.labels import Labels
from common.rest.base import Request
from common.work import WORK_TYPE_PATTERN, AgentType


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
