"""What callers see of agents."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.messages import AgentStatus, Resources


class Agent(BaseModel):
    """An agent and how it is."""

    model_config = ConfigDict(from_attributes=True)

    agent_id: UUID
    agent_type: str = Field(examples=["infra"])
    status: AgentStatus = Field(description="online, busy (every slot is taken), draining, or offline (silent)")
    resources: Resources
    last_heartbeat_at: datetime
    hostname: str
    version: str
    work_types: list[str] = Field(description="What it can run.")
    slots: int = Field(description="How many tasks it runs at a time.")
    current_tasks: list[UUID]
    started_at: datetime
