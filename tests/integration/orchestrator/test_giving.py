"""Work goes to agents that asked for it: at once when one has credit, and else when one gets some."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid4

from common.lifecycle import Status
from common.messages import Credit, StatusUpdate
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.dispatch.service import DispatchService
from orchestrator.events.model import Kind
from orchestrator.events.own import OwnEvents
from orchestrator.leases.credits import Credits
from orchestrator.leases.giving import Giving
from orchestrator.leases.service import LeaseService
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from tests.factories import make_heartbeat, make_new_task, make_result
from tests.integration.orchestrator.ledger import kinds_of

LEASE = timedelta(seconds=30)


class Orchestrator:
    """What one orchestrator knows and does, without its loops."""

    def __init__(self, pool: Pool) -> None:
        self.broker_is_there = True
        own, self.credits = OwnEvents(), Credits(lambda: self.broker_is_there)
        self.tasks = TaskService(pool)
        self.registry = RegistryService(pool, offline_after=timedelta(seconds=30))
        self.leases = LeaseService(
            pool, lease=LEASE, policy=RetryPolicy(base=timedelta(0)), credits=self.credits, own=own
        )
        self.giving = Giving(pool, self.credits, own, lease=LEASE)
        self.dispatching = DispatchService(
            pool, self.tasks, self.credits, self.leases.given, own, lease=LEASE, ageing=timedelta(minutes=10)
        )

    async def hears(self, agent: "Agent") -> None:
        update = agent.heartbeat()
        self.credits.offers(update.agent_id, update.agent_type, update.work_types)
        self.leases.learn((await self.registry.record([update])).rooms)


class Agent:
    def __init__(self, slots: int = 2, **values: object) -> None:
        self.agent_id, self.session, self.limit, self.number = uuid4(), uuid4(), slots, 0
        self.values = values

    def credit(self, **values: int) -> Credit:
        self.number += 1
        return Credit(session=self.session, number=self.number, limit=self.limit, **values)

    def heartbeat(self, *, current_tasks: Sequence[UUID] = (), **values: int) -> StatusUpdate:
        running = list(current_tasks)
        return make_heartbeat(
            self.agent_id, boot_id=self.session, credit=self.credit(**values), current_tasks=running, **self.values
        )


async def test_new_work_goes_at_once_to_an_agent_with_credit(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=2)
    await one.hears(agent)
    work = [make_new_task(), make_new_task(), make_new_task()]

    done = await one.dispatching.dispatch(work, by="caller")

    assert [(lease.task.task_id, lease.agent_id, lease.attempt) for lease in done.leased] == [
        (work[0].task_id, agent.agent_id, 1),
        (work[1].task_id, agent.agent_id, 1),
    ]
    assert {lease.claim_id for lease in done.leased} == {agent.session}
    assert done.waits
    assert [(await one.tasks.get(task.task_id)).status for task in work] == [
        Status.RUNNING,
        Status.RUNNING,
        Status.PENDING,
    ]
    assert await kinds_of(pool, work[0].task_id) == [Kind.TASK_DISPATCHED, Kind.TASK_CLAIMED]


async def test_what_waits_goes_when_a_result_makes_room(pool: Pool) -> None:
    one, agent = Orchestrator(pool), Agent(slots=1)
    await one.hears(agent)
    first, second = make_new_task(), make_new_task()
    await one.dispatching.dispatch([first, second], by="caller")
    assert (await one.giving.by_credit()).leased == []

    agent.limit += 1
    await one.leases.accept([make_result(first.task_id, agent.agent_id)], {agent.agent_id: agent.credit()})
    given = await one.giving.by_credit()

    assert [lease.task.task_id for lease in given.leased] == [second.task_id]
    assert given.leased[0].credit == agent.number
    assert (await one.tasks.get(first.task_id)).status is Status.COMPLETED
    assert (await one.giving.by_credit()).leased == []


async def test_nothing_is_leased_while_the_broker_is_away(pool: Pool) -> None:
    one, agent, task = Orchestrator(pool), Agent(), make_new_task()
    await one.hears(agent)
    one.broker_is_there = False

    done = await one.dispatching.dispatch([task], by="caller")

    assert (done.leased, (await one.giving.by_credit()).leased) == ([], [])
    assert (await one.tasks.get(task.task_id)).status is Status.PENDING
    one.broker_is_there = True
    assert [lease.task.task_id for lease in (await one.giving.by_credit()).leased] == [task.task_id]
