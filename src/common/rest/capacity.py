"""Which agents could take work now."""

from typing import Any
from uuid import UUID

from pydantic import Field

from common.rest.base import Answer


class AgentCapacity(Answer):
    """Whether an agent could take the work now."""

    agent_id: UUID = Field(description="The agent.")
    name: str = Field(description="Its name.")
    agent_type: str = Field(description="The pool that it belongs to.")
    can: bool = Field(description="It could begin such a task now.")
    slots: int = Field(description="How many tasks it runs at a time.")
    free_slots: int = Field(description="How many more it could begin, by the leases of the ledger.")
    labels: dict[str, Any] = Field(description="What it has: its own labels, and what is measured on its host.")
    reasons: list[str] = Field(description="Why it could not; empty when it could.")


class Capacity(Answer):
    """Which agents could take work now."""

    agents: list[AgentCapacity] = Field(description="Those that could first, the most room first.")
    free_slots: int = Field(description="How many such tasks could begin now, on all agents together.")
