"""What callers see of why a task waits."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.lifecycle import Status
from orchestrator.why.model import BlockerKind


class WhyAgent(BaseModel):
    """An agent that has to do with it."""

    model_config = ConfigDict(from_attributes=True)

    agent_id: UUID
    hostname: str
    running: int | None = Field(default=None, description="How many tasks it runs, by the ledger.")
    slots: int | None = Field(default=None, description="How many it can run at a time.")
    since: datetime | None = Field(
        default=None, description="When it was last heard of, began to run the task, or gave it back."
    )


class WhyBlocker(BaseModel):
    """One thing that is in the way, in words and as data; a field that says nothing here is left out."""

    model_config = ConfigDict(from_attributes=True)

    kind: BlockerKind
    message: str = Field(description="For people.")
    at: datetime | None = Field(default=None, description="When it ends or is due, or since when it is so.")
    by: str | None = Field(default=None, description="Who ordered it.")
    note: str | None = Field(default=None, description="What they said about it.")
    key: str | None = Field(default=None, description="The ordering or concurrency key.")
    limit: int | None = Field(default=None, description="How many tasks of the concurrency key may run at a time.")
    ahead: int | None = Field(default=None, description="How many go before it.")
    task_ids: list[UUID] | None = Field(default=None, description="The first before it, or those that use the limit.")
    agents: list[WhyAgent] | None = Field(default=None, description="At most 20 of them.")


class WhyResponse(BaseModel):
    """Whether a task waits and for what; for one that does not, the only entry says where it stands."""

    model_config = ConfigDict(from_attributes=True)

    task_id: UUID
    status: Status
    waiting: bool
    blockers: list[WhyBlocker] = Field(description="All that is in its way, always in the same order.")
