"""What callers see of agents, and what they order."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.json_rules import SafeText, WholeNumber
from common.messages import AgentStatus, Resources
from orchestrator.http.moment import Moment
from orchestrator.registry import model as registry

NOTE_LENGTH = 500
MAX_PAUSE_MINUTES = 7 * 24 * 60


class Agent(BaseModel):
    """An agent and how it is."""

    model_config = ConfigDict(from_attributes=True)

    agent_id: UUID
    agent_type: str = Field(examples=["infra"])
    status: AgentStatus = Field(description="online, busy (every slot is taken), draining, or offline (silent)")
    resources: Resources
    labels: dict[str, Any] = Field(default_factory=dict, description="What it says that it has, and what its host has.")
    last_heartbeat_at: datetime
    hostname: str
    version: str
    work_types: list[str] = Field(description="What it can run.")
    slots: int = Field(description="How many tasks it runs at a time.")
    current_tasks: list[UUID]
    started_at: datetime
    paused_until: datetime | None = Field(default=None, description="It gets no work until then.")
    paused_by: str | None = None
    pause_note: str | None = Field(default=None, description="Why it is paused.")
    draining: bool = Field(default=False, description="It gets no more work and leaves when it is done.")
    drain_note: str | None = Field(default=None, description="Why it is drained.")
    tripped_until: datetime | None = Field(
        default=None, description="It failed too often in a row and gets no work until then."
    )
    trip_reason: str | None = Field(default=None, description="Its last failure or refusal.")
    clock_off_seconds: float | None = Field(
        default=None,
        description="How far its clock is ahead of the orchestrator's (negative: behind), so that it gets no work.",
    )
    routed: bool = Field(default=False, description="A route leads work to its pool; else it gets none from a bus.")

    @classmethod
    def of(cls, agent: registry.Agent, pools: Collection[str]) -> Self:
        shown = cls.model_validate(agent)
        shown.routed = agent.agent_type in pools
        return shown


class NoteRequest(BaseModel):
    """Why something is ordered."""

    model_config = ConfigDict(extra="forbid")

    note: SafeText = Field(default="", max_length=NOTE_LENGTH, description="Why, for whoever looks at the agent.")


class PauseRequest(NoteRequest):
    """Why, and until when: `minutes` from now, or `until`."""

    minutes: WholeNumber = Field(
        default=5, ge=1, le=MAX_PAUSE_MINUTES, description="How long, unless `until` is given."
    )
    until: Moment | None = Field(default=None, description="Until when, with its zone; at most a week ahead.")

    @model_validator(mode="after")
    def _says_it_once(self) -> Self:
        if self.until is not None and "minutes" in self.model_fields_set:
            raise ValueError("give minutes or until, not both")
        return self
