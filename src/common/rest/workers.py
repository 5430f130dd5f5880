"""Workers of the queue API: what they report of themselves, and what they are ordered."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field

from common.json_rules import Line, Number, WholeNumber
from common.labels import Labels
from common.messages import HIGHEST_FIGURE, AgentStatus, KeyId
from common.moment import Moment
from common.rest.camel import CamelAnswer, CamelRequest
from common.rest.jobs import LONGEST_NAME
from common.schemas import Schemas
from common.work import AGENT_TYPE_PATTERN, AnyWorkType


class WorkerResources(CamelRequest):
    """How much of the worker's host is in use."""

    cpu_percent: Number = Field(default=0, ge=0, le=HIGHEST_FIGURE, description="Processor time in use.")
    memory_percent: Number = Field(default=0, ge=0, le=HIGHEST_FIGURE, description="Memory in use.")
    cores: WholeNumber | None = Field(default=None, ge=1, le=HIGHEST_FIGURE, description="Its logical processors.")
    load: Number | None = Field(
        default=None, ge=0, le=HIGHEST_FIGURE, description="Its load, the average of the last minute."
    )
    memory_free_gb: Number | None = Field(
        default=None, ge=0, le=HIGHEST_FIGURE, description="Memory that programs can still get."
    )
    gpu_vram_total_gb: Number | None = Field(
        default=None, ge=0, le=HIGHEST_FIGURE, description="Memory of its largest GPU."
    )
    gpu_vram_available_gb: Number | None = Field(
        default=None, ge=0, le=HIGHEST_FIGURE, description="The most memory that is free on one GPU."
    )


class WorkerReport(CamelRequest):
    """Who a worker is, what it can do, and what it does right now."""

    agent_type: str | None = Field(
        default=None,
        pattern=AGENT_TYPE_PATTERN,
        description="The pool that it belongs to, as its identity says; another one is refused (403). By default that "
        "of its identity, and http for a worker without one.",
    )
    hostname: Line = Field(default="", max_length=LONGEST_NAME, description="Its host.")
    version: Line = Field(default="", max_length=LONGEST_NAME, description="Its version.")
    work_types: Annotated[list[AnyWorkType], Field(max_length=100)] = Field(
        default_factory=list, description="What it can run."
    )
    slots: WholeNumber = Field(default=1, ge=1, le=10_000, description="How many jobs it runs at a time.")
    current_jobs: Annotated[list[UUID], Field(max_length=10_000)] = Field(
        default_factory=list, description="The jobs that it runs."
    )
    status: AgentStatus = Field(
        default=AgentStatus.ONLINE, description="online, busy (it runs something), draining, or offline (it leaves)"
    )
    resources: WorkerResources = Field(default_factory=WorkerResources, description="How much of its host is in use.")
    labels: Labels = Field(default_factory=dict, description="What it has, for work that needs it.")
    started_at: Moment | None = Field(default=None, description="When its process started.")
    trusted_keys: Annotated[list[KeyId], Field(max_length=100)] | None = Field(
        default=None, description="The keys whose signatures count for the worker; none for one that checks none."
    )
    sent_at: Moment | None = Field(default=None, description="The time by the worker's clock.")
    boot_id: UUID | None = Field(default=None, description="A random name of the worker's process.")
    schemas: Schemas = Field(
        default_factory=dict, description="JSON Schema of the parameters of its own work types; said once is enough."
    )


class WorkerOrder(CamelAnswer):
    """One order. A worker ignores an action that it does not know."""

    action: str = Field(description="pause, drain or leave", examples=["pause"])
    until: datetime | None = Field(default=None, description="The end of a pause.")
    started_at: datetime | None = Field(default=None, description="The process that a drain is for.")
    boot_id: UUID | None = Field(default=None, description="The process that is to leave: an earlier one still runs.")
    note: str = Field(default="", description="Why.")


class CancelledJob(CamelAnswer):
    """A job that the worker must stop."""

    job_id: UUID = Field(description="The job.")
    attempt: int = Field(description="The attempt that the worker runs.")


class UnsettledJob(CamelAnswer):
    """A job that has ended here while the worker, which owns its end, did not say how."""

    job_id: UUID = Field(description="The job.")
    attempt: int = Field(description="The attempt that the worker ran.")


class WorkerOrders(CamelAnswer):
    """What people ordered, and which jobs to stop."""

    orders: list[WorkerOrder] = Field(description="What people ordered; empty when the worker may work.")
    cancelled: list[CancelledJob] = Field(description="Of its current jobs those that it must stop.")
    settle: list[UnsettledJob] = Field(
        default_factory=list, description="Of which jobs the worker is to say, by their inner steps, how they ended."
    )
    keys: list[str] = Field(
        default_factory=list,
        description="The orchestrator's keys have changed: JWS (`chiffon-keys+jwt`) with the same claims, by each key.",
    )
