"""What callers say about where work should go."""

from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.labels import Labels
from common.work import AgentType


class Hints(BaseModel):
    """Where the work should go."""

    model_config = ConfigDict(extra="forbid")

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
