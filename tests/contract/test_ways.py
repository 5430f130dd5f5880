"""The same promises over every way to take work, on real orchestrators, ledgers and brokers.

`chiffon conformance` asks workers for the other half of them; here it is the orchestrator that is asked.
"""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from chiffon.models import TaskStatus
from common.artifacts import MAX_PIECE_BYTES
from common.messages import ArtifactPiece, StepStatus
from tests.contract.hands import Hand, Held
from tests.contract.ways import BrokerWay, HttpWay, MemoryWay, Way
from tests.factories import make_piece, make_step
from tests.services.postgres import Postgres
from tests.services.rabbitmq_node import Node

# The tests of one way share an orchestrator, so they stay in one worker.
WAYS = [
    pytest.param(way, id=way, marks=pytest.mark.xdist_group(f"ways/{way}"))
    for way in ("memory", "postgresql", "amqp", "http")
]


@pytest.fixture(scope="module", params=WAYS)
async def opened(
    request: pytest.FixtureRequest,
    postgres: Postgres,
    ledger_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Way]:
    ledger = await postgres.create_database(template=ledger_template)
    async with _way(request, ledger, tmp_path_factory.mktemp("artifacts")).open() as way:
        yield way
    await postgres.drop_database(ledger)


def _way(request: pytest.FixtureRequest, ledger: str, artifacts: Path) -> Way:
    match request.param:
        case "memory":
            return MemoryWay(ledger, artifacts)
        case "http":
            return HttpWay(ledger, artifacts)
        case "amqp":
            # Asked for by name, so that it is started only for the tests that use it.
            node: Node = request.getfixturevalue("rabbitmq")
            return BrokerWay(node.new_vhost_url(), ledger, artifacts)
        case _:
            return BrokerWay(ledger, ledger, artifacts)


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


async def test_inner_steps_are_told_once_each_in_their_order_however_often_they_are_reported(way: Way) -> None:
    task_id = await way.dispatch()
    begun, done = make_step(0, "analyze", message="looks"), make_step(0, "analyze", status=StepStatus.SUCCEEDED)
    end = make_step(5, "rollback", status=StepStatus.SKIPPED, message="nothing to undo")
    async with way.worker() as hand:
        held = await hand.take()

        for report in (begun, begun, done, begun, done):
            assert await hand.report_steps(held, report) is None
        through = [await hand.report_steps(held, done, end) for _ in range(2)]

        await hand.finish(held, "done")

    await completed(way, task_id)
    assert through == ["rollback"] * 2
    assert await way.told(task_id, "task.step") == [
        {"position": 0, "name": "analyze", "status": "in_progress", "message": "looks", "attempt": 1},
        {"position": 0, "name": "analyze", "status": "succeeded", "message": "", "attempt": 1},
        {"position": 5, "name": "rollback", "status": "skipped", "message": "nothing to undo", "attempt": 1},
    ]


async def test_steps_count_after_the_lease_is_lost_and_those_of_somebody_else_never(way: Way) -> None:
    task_id = await way.dispatch()
    end = make_step(5, "rollback", status=StepStatus.SUCCEEDED, message="as before")
    async with way.worker() as host:
        held = await host.take()
        async with way.worker() as heir:
            inherited = await heir.take()
            assert (inherited.task_id, inherited.attempt) == (task_id, 2)

            # Of the attempt that was the host's.
            await heir.report_steps(held, make_step(5, "rollback", status=StepStatus.FAILED, message="forged"))
            through = await host.report_steps(held, end)

            await heir.finish(inherited, "done")

    assert through == "rollback"
    assert await way.told(task_id, "task.step") == [
        {"position": 5, "name": "rollback", "status": "succeeded", "message": "as before", "attempt": 1}
    ]


async def test_a_file_arrives_whole_from_pieces_in_any_order_and_is_brought_to_other_work_in_pieces(way: Way) -> None:
    content = bytes(range(256)) * 1000
    kept = await way.dispatch()
    async with way.worker() as hand:
        held = await hand.take()
        assert await hand.keep(held, *reversed(pieces_of(content, "dist/data.bin"))) == ""
        assert await hand.keep(held, *pieces_of(content, "dist/data.bin")) == ""
        await hand.finish(held, "done")
    needs = await way.dispatch(files={"in/data.bin": {"task": str(kept), "artifact": "dist/data.bin"}})
    async with way.worker() as hand, way.worker() as stranger:
        held = await hand.take()
        assert held.task_id == needs

        first = await hand.fetch(held, "in/data.bin")
        rest = await hand.fetch(held, "in/data.bin", offset=len(first.raw))
        missing = await hand.fetch(held, "in/other.bin")
        forbidden = await stranger.fetch(held, "in/data.bin")

        await hand.finish(held, "done")

    assert (first.raw + rest.raw, first.sha256, rest.size) == (content, sha256(content).hexdigest(), len(content))
    assert all(piece.problem and not piece.data for piece in (missing, forbidden))
    assert await way.how_often(kept, "artifact.stored") == 1


async def test_a_file_whose_digest_is_another_one_is_refused_with_a_reason(way: Way) -> None:
    task_id = await way.dispatch()
    async with way.worker() as hand:
        held = await hand.take()

        refused = await hand.keep(held, make_piece(b"hello", sha256=sha256(b"other").hexdigest()))

        await hand.finish(held, "done")

    await completed(way, task_id)
    assert refused
    assert await way.how_often(task_id, "artifact.missing") == 1
    assert await way.how_often(task_id, "artifact.stored") == 0


def pieces_of(content: bytes, name: str) -> list[ArtifactPiece]:
    """Return a file as the pieces in which an agent sends it."""
    return [
        make_piece(content, name, offset=at, data=b64encode(content[at : at + MAX_PIECE_BYTES]).decode())
        for at in range(0, len(content), MAX_PIECE_BYTES)
    ]
