"""Output is stored once, read back whole and in order, in pages that never cut a character."""

import hashlib
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from common.messages import ResultStatus, Stream
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from orchestrator.output.model import Page
from orchestrator.output.service import OutputService
from orchestrator.tasks.service import TaskNotFound, TaskService
from tests.factories import make_chunk, make_new_task, make_result, make_status
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import events_of, kinds_of


@pytest.fixture
async def task(tasks: TaskService, pool: Pool) -> tuple[UUID, UUID]:
    new, agent_id = make_new_task(), uuid4()
    await tasks.dispatch([new], by="caller")
    await lease_to(pool, new.task_id, agent_id=agent_id)
    return new.task_id, agent_id


async def read(output: OutputService, task_id: UUID, *, offset: int = 0, limit: int = 1_000_000) -> Page:
    return await output.read(task_id, attempt=None, stream=Stream.STDOUT, offset=offset, limit=limit)


async def test_pieces_are_joined_in_order_whatever_the_order_of_arrival(
    output: OutputService, task: tuple[UUID, UUID]
) -> None:
    second, first = make_chunk(1, "world", offset=6), make_chunk(0, "hello ", offset=0)
    await output.store([make_status(*task, second)])
    hole = await read(output, task[0])
    await output.store([make_status(*task, first)])

    page = await read(output, task[0])

    assert (hole.text, hole.next_offset) == ("", 0)
    assert (page.text, page.next_offset, page.complete) == ("hello world", 11, False)


async def test_a_piece_that_arrives_twice_is_stored_and_told_once(
    output: OutputService, task: tuple[UUID, UUID], pool: Pool
) -> None:
    status = make_status(*task, make_chunk(0, "once", offset=0))

    await output.store([status, status])
    await output.store([status])

    assert (await read(output, task[0])).text == "once"
    assert (await kinds_of(pool, task[0])).count(Kind.TASK_OUTPUT) == 1


async def test_output_beyond_the_limit_is_not_kept_and_its_readers_are_told(tasks: TaskService, pool: Pool) -> None:
    limited = LeaseService(pool, lease=LEASE, policy=RetryPolicy(base=timedelta(0)), max_output_bytes=8)
    output, new, agent_id = OutputService(pool, max_output_bytes=8), make_new_task(), uuid4()
    await tasks.dispatch([new], by="caller")
    await lease_to(pool, new.task_id, agent_id=agent_id)
    # An agent that does not know of the limit, or does not keep it.
    await output.store([make_status(new.task_id, agent_id, make_chunk(0, "12345678", offset=0))])
    await output.store([make_status(new.task_id, agent_id, make_chunk(1, "9", offset=8))])
    result = make_result(new.task_id, agent_id, chunks=[make_chunk(2, "10", offset=9)])
    await limited.accept([result.model_copy(update={"output_bytes": {Stream.STDOUT: 11, Stream.STDERR: 0}})])

    page = await read(output, new.task_id)

    assert (page.text, page.complete, page.dropped) == ("12345678", True, 3)
    ended = (await events_of(pool))[-1]
    assert (ended.kind, ended.data["output_dropped"]) == (Kind.TASK_COMPLETED, {"stdout": 3})


async def test_output_of_a_stranger_is_dropped(output: OutputService, task: tuple[UUID, UUID]) -> None:
    await output.store([make_status(task[0], uuid4(), make_chunk(0, "forged", offset=0))])
    await output.store([make_status(*task, make_chunk(0, "late", offset=0), attempt=9)])
    await output.store([make_status(uuid4(), uuid4(), make_chunk(0, "nowhere", offset=0))])

    assert (await read(output, task[0])).text == ""


async def test_pages_never_cut_a_character_and_meet_without_a_seam(
    output: OutputService, task: tuple[UUID, UUID]
) -> None:
    text = "añ€𝄞" * 5
    first, second = text[:7], text[7:]
    chunks = make_chunk(0, first, offset=0), make_chunk(1, second, offset=len(first.encode()))
    await output.store([make_status(*task, *chunks)])

    for limit in range(1, 12):
        seen, offset = "", 0
        while (page := await read(output, task[0], offset=offset, limit=limit)).text:
            assert page.offset == offset
            seen, offset = seen + page.text, page.next_offset
        assert seen == text


async def test_an_offset_inside_a_character_moves_behind_it(output: OutputService, task: tuple[UUID, UUID]) -> None:
    await output.store([make_status(*task, make_chunk(0, "€x", offset=0))])

    page = await read(output, task[0], offset=1)

    assert (page.offset, page.text) == (3, "x")


async def test_output_is_complete_when_all_that_was_announced_is_there(
    output: OutputService, leases: LeaseService, task: tuple[UUID, UUID]
) -> None:
    sizes = {Stream.STDOUT: 8, Stream.STDERR: 0}
    await leases.accept(
        [make_result(*task, chunks=[make_chunk(1, "tail", offset=4)], output="headtail", output_bytes=sizes)]
    )
    missing = await read(output, task[0])
    await output.store([make_status(*task, make_chunk(0, "head", offset=0))])

    page = await read(output, task[0])

    assert (missing.text, missing.complete) == ("", False)
    assert (page.text, page.complete) == ("headtail", True)


async def test_an_event_of_output_carries_its_text(output: OutputService, task: tuple[UUID, UUID], pool: Pool) -> None:
    await output.store([make_status(*task, make_chunk(0, "seen", offset=0), progress="half way")])

    events = await events_of(pool)
    told = {event.kind: event.data for event in events}

    digest = hashlib.sha256(b"seen").hexdigest()
    assert told[Kind.TASK_OUTPUT] == {
        "number": 0,
        "stream": "stdout",
        "offset": 0,
        "sha256": digest,
        "text": "seen",
    }
    assert told[Kind.TASK_PROGRESS] == {"progress": "half way", "percent": None}
    assert len({(event.task_id, event.trace_id, event.request_id) for event in events}) == 1


async def test_the_status_shows_the_end_of_the_output_while_it_runs_and_afterwards(
    output: OutputService, tasks: TaskService, leases: LeaseService, task: tuple[UUID, UUID]
) -> None:
    await output.store([make_status(*task, make_chunk(0, "x" * 20_000, offset=0), make_chunk(1, "end", offset=20_000))])
    live = await output.tail(await tasks.get(task[0]))
    await leases.accept([make_result(*task, status=ResultStatus.FAILED, output="the end")])

    assert len(live) == 16 * 1024
    assert live.endswith("xend")
    assert await output.tail(await tasks.get(task[0])) == "the end"


async def test_the_output_of_a_task_that_does_not_exist_is_not_found(output: OutputService) -> None:
    with pytest.raises(TaskNotFound):
        await read(output, uuid4())
