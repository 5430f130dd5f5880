"""Orchestrators without their loops, and agents that ask for work by credit."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from common.lifecycle import Status
from common.messages import Credit, StatusUpdate, WorkResult
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.dispatch.service import Dispatched, DispatchService
from orchestrator.leases.credits import Credits
from orchestrator.leases.giving import Giving
from orchestrator.leases.model import Leased
from orchestrator.leases.service import LeaseService
from orchestrator.loops.give_work import GiveWork
from orchestrator.registry.rules import BreakerPolicy
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.model import NewTask, Task
from orchestrator.tasks.service import TaskService
from tests.factories import make_heartbeat

LEASE = timedelta(seconds=30)
AGEING = timedelta(minutes=10)

ACCOUNT = "SELECT credit_limit, granted, lost, credit_number FROM agent WHERE agent_id = $1"
ASK = """
    UPDATE agent SET credit_limit = granted + CASE WHEN agent_id = $1 THEN $2::bigint ELSE 0 END,
                     boot_id = coalesce(boot_id, gen_random_uuid())
"""


class Orchestrator:
    """What one orchestrator knows and does, without its loops."""

    def __init__(self, pool: Pool, *, breaker: BreakerPolicy | None = None) -> None:
        self._pool = pool
        self.broker_is_there = True
        self.credits = Credits(lambda: self.broker_is_there)
        self.tasks = TaskService(pool, ageing=AGEING)
        self.registry = RegistryService(pool, offline_after=timedelta(seconds=30))
        self.leases = LeaseService(
            pool,
            lease=LEASE,
            policy=RetryPolicy(base=timedelta(0)),
            breaker=breaker,
            credits=self.credits,
        )
        self.giving = Giving(pool, self.credits, lease=LEASE, breaker=breaker)
        self.dispatching = DispatchService(
            pool, self.tasks, self.credits, self.leases.given, lease=LEASE, ageing=AGEING
        )

    async def hears(self, *agents: "Agent", **credit: int) -> None:
        """Take in a heartbeat of each of the agents."""
        for agent in agents:
            await self.reads(agent.heartbeat((), **credit))

    async def reads(self, update: StatusUpdate) -> None:
        """Take in a heartbeat."""
        self.credits.offers(update.agent_id, update.agent_type, update.work_types)
        self.leases.learn((await self.registry.record([update])).rooms)

    async def dispatch(self, *tasks: NewTask) -> Dispatched:
        """Store tasks; those for which an agent has credit are leased with it."""
        return await self.dispatching.dispatch(tasks, by="caller")

    async def give(self) -> dict[UUID, UUID]:
        """Lease what waits, as its loop does; return the agent of each task, in the order in which they went."""
        leased: list[Leased] = []
        turns = GiveWork(self._pool, self.giving, self.leases, leased.extend)
        while await turns.run_once():
            pass
        return agents_of(leased)


class Agent:
    """One agent, as it would be seen by what it says. `limit` is how much it may have been granted in all."""

    def __init__(self, slots: int = 2, **values: Any) -> None:
        self.agent_id, self.session, self.limit, self.number = uuid4(), uuid4(), slots, 0
        self.values = values

    def credit(self, **values: int) -> Credit:
        """Return what its next message asks for."""
        self.number += 1
        return Credit(session=self.session, number=self.number, **{"limit": self.limit, **values})

    def heartbeat(self, current_tasks: Sequence[UUID] = (), /, **credit: int) -> StatusUpdate:
        about = {"boot_id": self.session, "current_tasks": list(current_tasks), **self.values}
        return make_heartbeat(self.agent_id, credit=self.credit(**credit), **about)

    async def reports(self, to: Orchestrator, *results: WorkResult) -> None:
        """End tasks, and ask for as many more."""
        self.limit += len(results)
        await to.leases.accept(results, {self.agent_id: self.credit()})


def agents_of(leased: list[Leased]) -> dict[UUID, UUID]:
    """Return the agent of each task that was leased."""
    return {one.task.task_id: one.agent_id for one in leased}


async def gets(pool: Pool, agent_id: UUID, *, room: int = 1, breaker: BreakerPolicy | None = None) -> list[UUID]:
    """Have only this agent ask for tasks, if it is registered, and return those that it is given, the best first."""
    async with pool.acquire() as db:
        await db.execute(ASK, agent_id, room)
    given: Mapping[UUID, UUID] = await Orchestrator(pool, breaker=breaker).give()
    return [task_id for task_id, to in given.items() if to == agent_id]


async def account(pool: Pool, agent: Agent) -> dict[str, int]:
    """Return what the ledger keeps of an agent's credit."""
    async with pool.acquire() as db:
        return dict(await db.fetchrow(ACCOUNT, agent.agent_id))


async def statuses(at: Orchestrator, *tasks: NewTask) -> list[Status]:
    return [(await at.tasks.get(task.task_id)).status for task in tasks]


def ids(*tasks: Task | NewTask) -> list[UUID]:
    return [task.task_id for task in tasks]
