"""Everything through which new work goes, on a real ledger, with one agent that is idle."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from orchestrator.dispatch.standing import StandingClaims
from orchestrator.dispatch.withdrawals import Withdrawals
from orchestrator.outbox.room import Room

from orchestrator.database.pool import Pool
from orchestrator.dispatch.service import Dispatched, DispatchService
from orchestrator.events.model import Kind
from orchestrator.events.own import OwnEvents
from orchestrator.leases.given import GivenLeases
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from tests.factories import make_heartbeat
from tests.integration.orchestrator.conftest import AGEING, LEASE
from tests.integration.orchestrator.test_shut_out import named

TTL = timedelta(seconds=30)
CLAIMED = [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]


@dataclass
class Now:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Front:
    """Everything through which new work goes, with one agent that is idle."""

    pool: Pool
    tasks: TaskService
    agent_id: UUID
    now: Now = field(default_factory=Now)
    room: Room = field(default_factory=Room)
    own: OwnEvents = field(default_factory=OwnEvents)

    def __post_init__(self) -> None:
        self.standing = StandingClaims(most=8, now=self.now)
        self.room.found("infra", free=100, taken=0)
        limits: dict[str, Any] = {"lease": LEASE, "max_output_bytes": 1000}
        self.service = DispatchService(
            self.pool,
            self.tasks,
            self.standing,
            self.room,
            GivenLeases(),
            self.own,
            ageing=AGEING,
            ttl=TTL,
            **limits,
        )
        self.withdrawals = Withdrawals(self.pool, **limits)

    def claim(self, count: int = 1, *, agent_id: UUID | None = None) -> list[UUID]:
        claims = [uuid4() for _ in range(count)]
        self.standing.add(agent_id or self.agent_id, "infra", claims)
        return claims

    async def dispatch(self, *tasks: Any) -> Dispatched:
        return await self.service.dispatch(tasks, by="caller")


async def open_front(pool: Pool, tasks: TaskService, registry: RegistryService) -> Front:
    agent_id = await named(pool, "web-1")
    await registry.record([make_heartbeat(agent_id)])
    return Front(pool, tasks, agent_id)


async def tickets_of(pool: Pool) -> set[UUID]:
    async with pool.acquire() as db:
        return {row["task_id"] for row in await db.fetch("SELECT task_id FROM outbox WHERE kind = 'ticket'")}
