"""A new ticket goes with its task while there is room, and is safe all the same: whatever fails, the relay has it."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from orchestrator.loops.relay_outbox import RelayOutbox
from orchestrator.outbox.room import Room

from common.broker.base import BrokerUnavailable
from common.broker.memory import MemoryBroker
from common.loop import Wake
from common.messages import ResultStatus
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.outbox.model import NewTicket
from orchestrator.tasks.dispatch import waits_in_line
from orchestrator.tasks.service import TaskService
from tests.factories import make_claim, make_new_task, make_result
from tests.integration.ledger import RegisteredLeases
from tests.integration.orchestrator.test_outbox import AGEING, TTL, published


class CountedWake(Wake):
    """A bell that knows how often it was rung."""

    def __init__(self) -> None:
        super().__init__()
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1
        super().ring()


class Published:
    """A relay with its room, on a broker."""

    def __init__(self, pool: Pool, broker: MemoryBroker, tasks: TaskService, *, window: int) -> None:
        self.room = Room()
        self.tasks = tasks
        self.relay = RelayOutbox(
            pool, broker, agent_types=["infra"], window=window, ttl=TTL, ageing=AGEING, room=self.room
        )

    async def dispatch(self, *priorities: int) -> list[NewTicket]:
        """Store tasks of these priorities, and return the tickets that are to be published at once."""
        new = [make_new_task(priority=priority) for priority in priorities]
        return (await self.tasks.dispatch_at_once(new, by="caller", room=self.room))[1]


@pytest.fixture
def at(pool: Pool, broker: MemoryBroker, tasks: TaskService) -> Published:
    return Published(pool, broker, tasks, window=2)


@pytest.mark.path_internals
async def test_a_ticket_for_which_there_is_room_is_published_once_and_not_by_the_relay(
    at: Published, broker: MemoryBroker
) -> None:
    await at.relay.run_once()
    tickets = await at.dispatch(3)
    await at.relay.publish_new(tickets)

    assert await at.relay.run_once() == 0
    assert await published(broker) == [tickets[0].task_id]


@pytest.mark.path_internals
async def test_what_does_not_fit_into_the_window_is_left_to_the_relay_and_the_most_urgent_go(at: Published) -> None:
    await at.relay.run_once()

    tickets = await at.dispatch(1, 5, 3)

    assert [ticket.priority for ticket in tickets] == [5, 3]
    assert await at.dispatch(5) == [], "it would go before one that waits"
    assert await at.relay.run_once() == 0, "the window is full"


async def test_a_ticket_that_was_stored_and_never_published_is_published_when_its_time_is_over(
    at: Published, broker: MemoryBroker, pool: Pool
) -> None:
    await at.relay.run_once()
    [ticket] = await at.dispatch(3)  # and the orchestrator dies

    assert await at.relay.run_once() == 0
    async with pool.acquire() as db:
        await db.execute("UPDATE outbox SET due_at = due_at - $1::interval", TTL + timedelta(seconds=1))

    assert await at.relay.run_once() == 1
    assert await published(broker) == [ticket.task_id]


@pytest.mark.path_internals
async def test_a_ticket_that_the_broker_does_not_take_is_published_by_the_relay(
    at: Published, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at.relay.run_once()
    [ticket] = await at.dispatch(3)

    async def away(*messages: object) -> None:
        raise BrokerUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(broker, "publish", away)
        await at.relay.publish_new([ticket])

    assert await at.relay.run_once() == 1
    assert await published(broker) == [ticket.task_id]


@pytest.mark.path_internals
@pytest.mark.parametrize(("status", "calls"), [(ResultStatus.FAILED, True), (ResultStatus.COMPLETED, False)])
async def test_a_result_calls_the_relay_when_the_task_is_tried_again_and_not_when_it_has_ended(
    pool: Pool, tasks: TaskService, status: ResultStatus, calls: bool
) -> None:
    relay = CountedWake()
    policy = RetryPolicy(base=timedelta(0))
    leases = RegisteredLeases(pool, lease=timedelta(seconds=30), policy=policy, relay=relay)
    task, agent_id = make_new_task(max_attempts=2), uuid4()
    await tasks.dispatch([task], by="caller")
    await leases.claim([make_claim(task.task_id, agent_id=agent_id)])
    assert relay.rings == 0

    await leases.accept([make_result(task.task_id, agent_id, status=status, retryable=True)])

    assert (relay.rings > 0) is calls


@pytest.mark.path_internals
async def test_who_is_refused_a_task_has_the_relay_look(pool: Pool) -> None:
    relay = CountedWake()
    leases = RegisteredLeases(pool, lease=timedelta(seconds=30), policy=RetryPolicy(), relay=relay)

    await leases.claim([make_claim(uuid4())])

    assert relay.rings


@pytest.mark.parametrize(
    ("values", "waits"),
    [
        ({}, True),
        ({"priority": 1}, True),
        ({"priority": 4}, False),
        ({"ordering_key": "a"}, False),
        ({"hints": {"agent_id": str(uuid4())}}, False),
    ],
)
@pytest.mark.path_internals
def test_a_task_waits_in_line_unless_it_is_urgent_has_keys_or_aims_at_somebody(
    values: dict[str, Any], waits: bool
) -> None:
    assert waits_in_line(make_new_task(**values)) is waits
