"""The same work for several agents, on a real ledger: so many at a time, until so many failed, and once."""

from uuid import UUID, uuid4

import pytest

from common.broker.memory import MemoryBroker
from common.lifecycle import Status
from common.loop import Wake
from common.messages import ResultStatus
from orchestrator.database.pool import Pool
from orchestrator.events.service import EventService
from orchestrator.fan_outs.model import Dispatched, Pace, Selector
from orchestrator.fan_outs.service import FanOutService
from orchestrator.output.service import OutputService
from orchestrator.policy.service import open_policy
from orchestrator.service import OrchestratorService
from orchestrator.settings import STANDARD
from orchestrator.why.service import Failures, WhyService
from tests.factories import make_result
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.on_credit import Agent, Orchestrator
from tests.integration.orchestrator.test_keys import on_the_way


async def well() -> Failures:
    return Failures(None, None)


@pytest.fixture
def fan_outs(pool: Pool, at: Orchestrator, broker: MemoryBroker) -> FanOutService:
    service = OrchestratorService(
        STANDARD,
        broker,
        tasks=at.tasks,
        dispatch=at.dispatching,
        output=OutputService(pool),
        events=EventService(pool),
        registry=at.registry,
        leases=at.leases,
        why=WhyService(pool, offline_after=STANDARD.agent_offline_after, failures=well),
        policy=open_policy(None),
        giver=Wake(),
        send=lambda leased: None,
    )
    return FanOutService(pool, service, at.registry)


async def sent_to_all(
    fan_outs: FanOutService, *, fan_out_id: UUID | None = None, batch: int | str | None = None, most: int | None = None
) -> Dispatched:
    return await fan_outs.dispatch(
        fan_out_id or uuid4(), "echo", {"message": "hi"}, 3, selector=Selector(), pace=Pace(batch, most)
    )


async def ends(at: Orchestrator, pool: Pool, sent: Dispatched, task_id: UUID, status: ResultStatus) -> None:
    [agent_id] = [part.target.agent_id for part in sent.parts if part.task_id == task_id]
    await lease_to(pool, task_id, agent_id=agent_id)
    await at.leases.accept([make_result(task_id, agent_id, status=status)])


async def test_no_more_tasks_of_a_fan_out_are_on_their_way_than_its_batch_has(
    at: Orchestrator, pool: Pool, fan_outs: FanOutService
) -> None:
    await at.hears(*(Agent() for _ in range(4)))

    sent = await sent_to_all(fan_outs, batch="50%")

    for left in (2, 2, 1, 0):
        first, *_ = waiting = await on_the_way(pool)
        assert len(waiting) == min(2, left + 1)
        await ends(at, pool, sent, first, ResultStatus.COMPLETED)
    assert (await fan_outs.get(sent.fan_out_id)).tasks[-1].status is Status.COMPLETED


async def test_after_so_many_failures_no_task_of_a_fan_out_begins_and_the_rest_is_cancelled(
    at: Orchestrator, pool: Pool, fan_outs: FanOutService
) -> None:
    await at.hears(*(Agent() for _ in range(4)))
    sent = await sent_to_all(fan_outs, batch=1, most=2)

    for status in (ResultStatus.FAILED, ResultStatus.CANCELLED, ResultStatus.FAILED):
        [task_id] = await on_the_way(pool)
        assert await at.tasks.stop_fan_outs(limit=10) == 0
        await ends(at, pool, sent, task_id, status)

    assert await on_the_way(pool) == []
    assert await at.tasks.stop_fan_outs(limit=10) == 1
    last = (await fan_outs.get(sent.fan_out_id)).tasks[-1]
    assert (last.status, last.error_message) == (Status.CANCELLED, "stopped: 2 tasks of its fan-out failed")


async def test_a_fan_out_that_is_sent_again_goes_to_the_agents_of_the_first_time(
    at: Orchestrator, fan_outs: FanOutService
) -> None:
    fan_out_id = uuid4()
    await at.hears(Agent())
    first = await sent_to_all(fan_outs, fan_out_id=fan_out_id)
    await at.hears(Agent())

    again = await sent_to_all(fan_outs, fan_out_id=fan_out_id)

    assert [part.task_id for part in again.parts] == [part.task_id for part in first.parts]
    assert len((await fan_outs.get(fan_out_id)).tasks) == 1


async def test_each_task_of_a_fan_out_goes_to_the_agent_that_it_is_for(
    at: Orchestrator, fan_outs: FanOutService
) -> None:
    await at.hears(*(Agent(slots=3) for _ in range(3)))

    sent = await sent_to_all(fan_outs)

    assert await at.give() == {part.task_id: part.target.agent_id for part in sent.parts}
