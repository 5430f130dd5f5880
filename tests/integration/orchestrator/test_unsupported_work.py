"""Work that no agent offers is set aside and holds up nothing, in any amount; what some offer is placed on those."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from orchestrator.loops.place_tickets import PlaceTickets
from orchestrator.loops.relay_outbox import RelayOutbox
from orchestrator.outbox.room import Room

from common.broker import topology
from common.broker.memory import MemoryBroker
from common.messages import Ticket
from common.protocol import decode
from common.rest.why import BlockerKind
from orchestrator.database.pool import Pool
from orchestrator.leases.service import LeaseService
from orchestrator.outbox import queries as outbox
from orchestrator.registry import queries as registry_queries
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.model import NewTask
from orchestrator.tasks.service import TaskService
from orchestrator.why.service import Failures, WhyService
from tests.factories import make_heartbeat, make_new_task
from tests.integration.orchestrator.conftest import AGEING
from tests.integration.orchestrator.test_deep_backlogs import FEW_PAGES, pages_read

TTL, OFFLINE = timedelta(seconds=30), timedelta(seconds=30)
MANY = 20_000
FILL = """
    INSERT INTO outbox (kind, recipient, task_id, priority, body, rank, due_at)
    SELECT 'ticket', 'infra', gen_random_uuid(), 3, '{"payload": {"work_type": "render"}}', now() - interval '1 day',
           now()
      FROM generate_series(1, $1::int)
"""


def relay(pool: Pool, broker: MemoryBroker, room: Room | None = None) -> RelayOutbox:
    return RelayOutbox(pool, broker, agent_types=["infra"], window=8, ttl=TTL, ageing=AGEING, room=room)


async def tickets_in(broker: MemoryBroker, queue: str) -> list[UUID]:
    found: list[UUID] = []
    async with broker.consume(queue, prefetch=100) as consumer:
        while await broker.depth(queue):
            for delivery in await consumer.receive(100):
                payload = decode(delivery.body).payload
                assert isinstance(payload, Ticket)
                found.append(payload.task_id)
                await consumer.ack(delivery)
    return found


async def dispatched(tasks: TaskService, count: int, work_type: str) -> list[NewTask]:
    made = [make_new_task(work_type=work_type) for _ in range(count)]
    await tasks.dispatch(made, by="caller")
    return made


async def test_work_that_no_agent_offers_is_not_published_and_other_work_is_at_once(
    tasks: TaskService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    await registry.record([make_heartbeat(work_types=["echo"])])
    await dispatched(tasks, 200, "render")
    [other] = await dispatched(tasks, 1, "echo")

    await relay(pool, broker).run_once()

    assert await tickets_in(broker, "work.infra") == [other.task_id]


@pytest.mark.own_ledger
async def test_the_relay_passes_over_twenty_thousand_tickets_that_no_agent_offers_by_reading_a_few_pages(
    tasks: TaskService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    await registry.record([make_heartbeat(work_types=["echo"])])
    async with pool.acquire() as db:
        await db.execute(FILL, MANY)
        offers = await registry_queries.offers(db, offline_after=OFFLINE)
    [other] = await dispatched(tasks, 1, "echo")
    arguments = (["infra"], 8, TTL, AGEING, ["infra"], ["infra"], ["echo"])

    read = await pages_read(pool, outbox.TAKE_TICKETS, *arguments)
    await relay(pool, broker).run_once()

    assert not offers.is_for_all("infra", "render")
    assert read < FEW_PAGES
    assert await tickets_in(broker, "work.infra") == [other.task_id]


async def test_what_was_set_aside_is_published_when_an_agent_offers_it(
    tasks: TaskService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    agent_id = uuid4()
    await registry.record([make_heartbeat(agent_id, work_types=["echo"])])
    made = await dispatched(tasks, 3, "render")
    publisher = relay(pool, broker)
    await publisher.run_once()
    assert await broker.depth("work.infra") == 0

    await registry.record([make_heartbeat(agent_id, work_types=["echo", "render"])])
    await publisher.run_once()

    assert await tickets_in(broker, "work.infra") == [task.task_id for task in made]


async def test_work_that_only_some_agents_of_a_pool_offer_goes_to_those_alone(
    tasks: TaskService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    able, unable = uuid4(), uuid4()
    await broker.declare(topology.own_work_queue(able), topology.own_work_queue(unable))
    await registry.record(
        [make_heartbeat(able, work_types=["echo", "render"]), make_heartbeat(unable, work_types=["echo"], slots=9)]
    )
    placed = await dispatched(tasks, 2, "render")
    [common] = await dispatched(tasks, 1, "echo")

    await relay(pool, broker).run_once()
    await PlaceTickets(pool, broker, offline_after=OFFLINE, ttl=TTL, ageing=AGEING).run_once()

    assert await tickets_in(broker, "work.infra") == [common.task_id]
    assert await tickets_in(broker, topology.own_work_queue(able).name) == [task.task_id for task in placed]
    assert await broker.depth(topology.own_work_queue(unable).name) == 0


async def test_an_agent_that_names_no_work_takes_what_another_of_its_pool_does_not(
    tasks: TaskService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    choosy, willing = uuid4(), uuid4()
    await broker.declare(topology.own_work_queue(choosy), topology.own_work_queue(willing))
    await registry.record(
        [make_heartbeat(choosy, work_types=["echo"], slots=9), make_heartbeat(willing, work_types=[])]
    )
    [placed] = await dispatched(tasks, 1, "render")
    [common] = await dispatched(tasks, 1, "echo")

    await relay(pool, broker).run_once()
    await PlaceTickets(pool, broker, offline_after=OFFLINE, ttl=TTL, ageing=AGEING).run_once()

    assert await tickets_in(broker, "work.infra") == [common.task_id]
    assert await tickets_in(broker, topology.own_work_queue(willing).name) == [placed.task_id]
    assert await broker.depth(topology.own_work_queue(choosy).name) == 0


async def test_an_agent_whose_clock_is_off_leaves_the_tickets_of_its_pool_to_others(
    tasks: TaskService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    """It may not know, and would take one after another in vain."""
    off, right = uuid4(), uuid4()
    await broker.declare(topology.own_work_queue(right))
    wrong_time = datetime.now(UTC) + timedelta(hours=1)
    await registry.record([make_heartbeat(off, work_types=["echo"], sent_at=wrong_time)])
    [task] = await dispatched(tasks, 1, "echo")
    placing = PlaceTickets(pool, broker, offline_after=OFFLINE, ttl=TTL, ageing=AGEING)

    await relay(pool, broker).run_once()
    alone = await placing.run_once()
    await registry.record([make_heartbeat(right, work_types=["echo"])])
    await relay(pool, broker).run_once()
    await placing.run_once()

    assert alone == 0
    assert await broker.depth("work.infra") == 0
    assert await tickets_in(broker, topology.own_work_queue(right).name) == [task.task_id]


async def test_the_tickets_of_a_pool_go_to_an_agent_again_when_its_clock_is_right(
    tasks: TaskService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    agent_id = uuid4()
    wrong_time = datetime.now(UTC) - timedelta(hours=1)
    await registry.record([make_heartbeat(agent_id, work_types=["echo"], sent_at=wrong_time)])
    [task] = await dispatched(tasks, 1, "echo")
    publisher = relay(pool, broker)
    await publisher.run_once()
    assert await broker.depth("work.infra") == 0

    await registry.record([make_heartbeat(agent_id, work_types=["echo"], sent_at=datetime.now(UTC))])
    await publisher.run_once()

    assert await tickets_in(broker, "work.infra") == [task.task_id]


async def test_aimed_work_that_its_agent_does_not_offer_does_not_hold_up_what_it_offers(
    tasks: TaskService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    agent_id = uuid4()
    await broker.declare(topology.own_work_queue(agent_id))
    await registry.record([make_heartbeat(agent_id, work_types=["echo"])])
    aim = {"agent_id": str(agent_id)}
    await tasks.dispatch([make_new_task(work_type="render", hints=aim) for _ in range(5)], by="caller")
    able = make_new_task(hints=aim)
    await tasks.dispatch([able], by="caller")

    await PlaceTickets(pool, broker, offline_after=OFFLINE, ttl=TTL, ageing=AGEING).run_once()

    assert await tickets_in(broker, topology.own_work_queue(agent_id).name) == [able.task_id]


async def test_a_dispatch_of_work_that_no_agent_offers_takes_no_place_of_the_window(
    tasks: TaskService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    room = Room(window=8)
    await registry.record([make_heartbeat(work_types=["echo"])])
    await relay(pool, broker, room).run_once()

    _, unoffered = await tasks.dispatch_at_once(
        [make_new_task(work_type="render") for _ in range(20)], by="caller", room=room
    )
    _, at_once = await tasks.dispatch_at_once([other := make_new_task()], by="caller", room=room)

    assert unoffered == []
    assert [ticket.task_id for ticket in at_once] == [other.task_id]


async def test_a_ticket_that_an_agent_could_not_use_leaves_its_place_to_others(
    tasks: TaskService, leases: LeaseService, registry: RegistryService, pool: Pool, broker: MemoryBroker
) -> None:
    """Published while no agent was there, so that nobody knew who would come."""
    made = await dispatched(tasks, 20, "render")
    publisher = relay(pool, broker)
    await publisher.run_once()
    taken = await tickets_in(broker, "work.infra")
    agent = make_heartbeat(work_types=["echo"])
    await registry.record([agent])
    [other] = await dispatched(tasks, 1, "echo")
    await publisher.run_once()
    assert await broker.depth("work.infra") == 0, "the window is full"

    await leases.return_tickets([(task_id, agent.agent_id) for task_id in taken])
    await publisher.run_once()

    assert set(taken) <= {task.task_id for task in made}
    assert await tickets_in(broker, "work.infra") == [other.task_id]


async def test_why_says_that_it_is_set_aside_and_does_not_count_it_before_others(
    tasks: TaskService, registry: RegistryService, pool: Pool
) -> None:
    async def well() -> Failures:
        return Failures(None, None)

    why = WhyService(pool, offline_after=OFFLINE, failures=well)
    await registry.record([make_heartbeat(hostname="web", work_types=["echo"])])
    unoffered = await dispatched(tasks, 200, "render")
    [other] = await dispatched(tasks, 1, "echo")

    aside = await why.explain(unoffered[0].task_id)
    next_one = await why.explain(other.task_id)

    [blocker] = aside.blockers
    assert blocker.kind is BlockerKind.NOT_OFFERED
    assert "offers 'render': web" in blocker.message
    assert blocker.message.endswith("The task is set aside until an agent offers it.")
    [queued] = next_one.blockers
    assert (queued.kind, queued.ahead) == (BlockerKind.QUEUED, 0)
