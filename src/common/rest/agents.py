"""Agents as callers see them, and what operators order."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import Field, model_validator

from common.json_rules import Line, WholeNumber
from common.messages import AgentStatus, Resources
from common.moment import Moment
from common.rest.base import Answer, Request

NOTE_LENGTH = 500
MAX_PAUSE_MINUTES = 7 * 24 * 60


class Agent(Answer):
    """An agent and how it is."""

    agent_id: UUID = Field(description="Its id.")
    name: str = Field(default="", description="The name under which it enrolled, or else that of its host.")
    agent_type: str = Field(description="The pool that it belongs to.", examples=["infra"])
    status: AgentStatus = Field(description="online, busy (it runs something), draining, or offline (silent)")
    resources: Resources = Field(description="How much of its host is in use.")
    labels: dict[str, Any] = Field(default_factory=dict, description="What it says that it has, and what its host has.")
    last_heartbeat_at: datetime = Field(description="When it was last heard of.")
    hostname: str = Field(description="Its host.")
    version: str = Field(description="Its version of Chiffon.")
    work_types: list[str] = Field(description="What it can run.")
    slots: int = Field(description="How many tasks it runs at a time.")
    free_slots: int = Field(default=0, description="How many more it could begin now, by what it last said.")
    current_tasks: list[UUID] = Field(description="The tasks that it runs.")
    started_at: datetime = Field(description="When its process started.")
    paused_until: datetime | None = Field(default=None, description="It gets no work until then.")
    paused_by: str | None = Field(default=None, description="Who paused it.")
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


class NoteRequest(Request):
    """Why something is ordered."""

    note: Line = Field(default="", max_length=NOTE_LENGTH, description="Why, for people who look at the agent.")


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
