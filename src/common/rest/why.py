"""Why a task waits, as callers see it."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from common.lifecycle import Status
from common.rest.base import Answer, OrNewer


class BlockerKind(StrEnum):
    """What can be in the way of a task; the order is that of an answer."""

    ENDED = "ended"
    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    ORDERING_KEY = "ordering_key"
    CONCURRENCY_KEY = "concurrency_key"
    LOOP_PAUSE = "loop_pause"
    RETRY_DUE = "retry_due"
    REFUSED = "refused"
    BROKER_DOWN = "broker_down"
    LEASING_FAILING = "leasing_failing"
    NO_AGENT = "no_agent"
    NOT_OFFERED = "not_offered"
    NO_SUITABLE_AGENT = "no_suitable_agent"
    SLOTS_BUSY = "slots_busy"
    AGENT_NOT_ASKING = "agent_not_asking"
    AGENT_PAUSED = "agent_paused"
    AGENT_DRAINING = "agent_draining"
    AGENT_CLOCK_OFF = "agent_clock_off"
    AGENT_TRIPPED = "agent_tripped"
    QUEUED = "queued"
    EXPIRES = "expires"


class WhyAgent(Answer):
    """An agent that a blocker is about."""

    agent_id: UUID = Field(description="The agent.")
    hostname: str = Field(description="Its host.")
    running: int | None = Field(default=None, description="How many tasks it runs, by the ledger.")
    slots: int | None = Field(default=None, description="How many it can run at a time.")
    since: datetime | None = Field(
        default=None, description="When it was last heard of, began to run the task, or gave it back."
    )


class Blocker(Answer):
    """One thing that is in the way, in words and as data; a field that says nothing here is left out."""

    kind: OrNewer[BlockerKind] = Field(description="What it is, for programs.")
    message: str = Field(description="What it is, for people.")
    at: datetime | None = Field(default=None, description="When it ends or is due, or since when it is so.")
    by: str | None = Field(default=None, description="Who ordered it.")
    note: str | None = Field(default=None, description="What they said about it.")
    key: str | None = Field(default=None, description="The ordering or concurrency key.")
    limit: int | None = Field(default=None, description="How many tasks of the concurrency key may run at a time.")
    ahead: int | None = Field(default=None, description="How many go before it.")
    task_ids: list[UUID] | None = Field(default=None, description="The first before it, or those that use the limit.")
    agents: list[WhyAgent] | None = Field(default=None, description="At most 20 of them.")


class Why(Answer):
    """Whether a task waits and for what; for one that does not, the only entry says where it stands."""

    task_id: UUID = Field(description="The task.")
    status: Status = Field(description="Where it stands.")
    waiting: bool = Field(description="Whether it waits.")
    blockers: list[Blocker] = Field(description="All that is in its way, always in the same order.")
