"""The same promises over every way to take work, on real orchestrators, ledgers and brokers.

`chiffon conformance` asks workers for the other half of them; here it is the orchestrator that is asked.
"""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from chiffon.models import TaskStatus
from tests.contract.hands import Hand, Held
from tests.contract.ways import BrokerWay, HttpWay, MemoryWay, Way
from tests.services.postgres import Postgres
from tests.services.rabbitmq_node import Node

# The tests of one way share an orchestrator, so they stay in one worker.
WAYS = [
    pytest.param(way, id=way, marks=pytest.mark.xdist_group(f"ways/{way}"))
    for way in ("memory", "postgresql", "amqp", "http")
]


@pytest.fixture(scope="module", params=WAYS)
async def opened(request: pytest.FixtureRequest, postgres: Postgres, ledger_template: str) -> AsyncIterator[Way]:
    ledger = await postgres.create_database(template=ledger_template)
    async with _way(request, ledger).open() as way:
        yield way
    await postgres.drop_database(ledger)


def _way(request: pytest.FixtureRequest, ledger: str) -> Way:
    match request.param:
        case "memory":
            return MemoryWay(ledger)
        case "http":
            return HttpWay(ledger)
        case "amqp":
            # Asked for by name, so that it is started only for the tests that use it.
            node: Node = request.getfixturevalue("rabbitmq")
            return BrokerWay(node.new_vhost_url(), ledger)
        case _:
            return BrokerWay(ledger, ledger)


@pytest.fixture
def way(opened: Way) -> Way:
    opened.next_test()
    return opened


async def completed(way: Way, task_id: UUID) -> TaskStatus:
    """Return how a task ended, which must be well, once, and with one attempt accepted."""
    status = await way.client.wait(task_id)
    assert status.status == "completed"
    assert await way.how_often(task_id, "task.completed") == 1
    return status


async def test_each_task_is_taken_once_by_one_of_many_workers(way: Way) -> None:
    dispatched = [await way.dispatch() for _ in range(9)]

    async def work() -> list[UUID]:
        async with way.worker() as hand:
            done = []
            for _ in range(3):
                held = await hand.take()
                await hand.finish(held, "done")
                done.append(held.task_id)
            return done

    taken = [task_id for done in await asyncio.gather(work(), work(), work()) for task_id in done]

    assert sorted(taken) == sorted(dispatched)
    ended = await asyncio.gather(*(completed(way, task_id) for task_id in taken))
    assert [status.attempt for status in ended] == [1] * 9


async def test_the_most_urgent_is_taken_first_and_among_equals_the_oldest(way: Way) -> None:
    priorities = (1, 3, 5, 3, 2, 5)
    dispatched = [await way.dispatch(priority=priority) for priority in priorities]
    async with way.worker() as hand:
        order = []
        for _ in priorities:
            held = await hand.take()
            await hand.finish(held, "done")
            order.append(dispatched.index(held.task_id))

    assert order == [2, 5, 1, 3, 4, 0]


async def test_a_claim_whose_answer_was_lost_gets_the_same_attempt_again(way: Way) -> None:
    task_id = await way.dispatch()
    async with way.worker() as hand:
        held = await hand.take()

        again = await hand.ask_again(held)

        assert (again.task_id, again.attempt) == (held.task_id, 1)
        await hand.finish(again, "done")
    assert (await completed(way, task_id)).attempt == 1


async def test_a_task_that_somebody_has_is_given_to_nobody_else(way: Way) -> None:
    task_id = await way.dispatch()
    async with way.worker() as hand, way.worker() as other:
        held = await hand.take()

        asking = asyncio.create_task(other.take())
        # Dispatched later, so that the other would get the first before it.
        later = await way.dispatch()
        got = await asking

        assert got.task_id == later
        await other.finish(got, "done")
        await hand.finish(held, "done")
    assert (await completed(way, task_id)).attempt == 1


async def test_a_result_that_is_told_twice_counts_once(way: Way) -> None:
    task_id = await way.dispatch()
    async with way.worker() as hand:
        held = await hand.take()
        await hand.finish(held, "first")

        await hand.finish(held, "first")

    assert (await completed(way, task_id)).output == "first"


async def test_a_result_of_somebody_who_does_not_have_the_task_changes_nothing(way: Way) -> None:
    task_id = await way.dispatch()
    async with way.worker() as hand, way.worker() as stranger:
        held = await hand.take()

        await stranger.finish(held, "not mine")

        assert (await way.client.status(task_id)).status == "running"
        await hand.finish(held, "mine")
    assert (await completed(way, task_id)).output == "mine"


async def test_what_a_dead_or_silent_worker_had_is_done_by_another_and_a_late_result_changes_nothing(way: Way) -> None:
    for _ in range(2):
        await way.dispatch()
    async with way.worker() as silent:
        late = await silent.take()
        async with way.worker() as dying:
            lost = await dying.take()

        async def inherit(heir: Hand) -> Held:
            # At once, for an heir has no longer than those before it.
            held = await heir.take()
            if held.task_id == late.task_id:
                await silent.finish(late, "too late")
                assert (await way.client.status(late.task_id)).status == "running"
            await heir.finish(held, "in time")
            return held

        # Two who wait for the end of a lease together, because that takes long.
        async with way.worker() as heir, way.worker() as other_heir:
            inherited = await asyncio.gather(inherit(heir), inherit(other_heir))

    assert {held.task_id: held.attempt for held in inherited} == {late.task_id: 2, lost.task_id: 2}
    for held in inherited:
        assert (await completed(way, held.task_id)).output == "in time"


async def test_a_restart_of_the_orchestrator_loses_neither_what_waits_nor_what_is_being_done(way: Way) -> None:
    running, waiting = await way.dispatch(), await way.dispatch()
    async with way.worker() as hand:
        held = await hand.take()
        assert held.task_id == running

        await way.restart()

        await hand.finish(held, "begun before")
        after = await hand.take()
        await hand.finish(after, "begun after")
    assert after.task_id == waiting
    before = await completed(way, running)
    assert (before.output, before.attempt) == ("begun before", 1)
    assert (await completed(way, waiting)).output == "begun after"
