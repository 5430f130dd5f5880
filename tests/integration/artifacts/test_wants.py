"""Work gets the files that it names, and its agent learns why it does not get one."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from common.artifacts import MAX_PIECE_BYTES
from common.messages import WantFile
from common.orders import FilePiece
from orchestrator.artifacts import queries
from orchestrator.artifacts.model import Upload
from orchestrator.artifacts.rules import Limits
from orchestrator.database.pool import Pool
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.service import TaskService
from tests.factories import make_result
from tests.integration.artifacts import keeping
from tests.integration.artifacts.keeping import AGEING, AT_ONCE, Keeping, Work, cut, forget, sha
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import let_leases_run_out

CONTENT = b"hello world" * 100


def want(work: Work, path: str = "in/file", *, offset: int = 0, attempt: int = 1) -> WantFile:
    return WantFile(
        want_id=uuid4(), agent_id=work.agent_id, task_id=work.task_id, attempt=attempt, path=path, offset=offset
    )


async def getting(pool: Pool, **reference: Any) -> Work:
    """Have an agent run work that gets a file as `in/file`."""
    return await keeping.work(
        pool, work_type="shell_script", parameters={"script": "true", "files": {"in/file": reference}}
    )


async def end(pool: Pool, work: Work) -> None:
    leases = LeaseService(pool, lease=LEASE, policy=AT_ONCE)
    await leases.accept([make_result(work.task_id, work.agent_id)])


async def problem(kept: Keeping, wanted: WantFile) -> str:
    piece = await kept.parts.service.piece(wanted)
    assert piece is not None
    assert (piece.want_id, piece.data, piece.sha256) == (wanted.want_id, "", "")
    return piece.problem


async def whole(kept: Keeping, work: Work) -> bytes:
    """Fetch a file piece by piece, as an agent does."""
    content, first = b"", None
    while first is None or len(content) < first.size:
        piece = await kept.parts.service.piece(want(work, offset=len(content)))
        assert piece is not None
        assert piece.problem == ""
        assert piece.offset == len(content)
        first = first or piece
        assert (piece.size, piece.sha256) == (first.size, first.sha256)
        content += piece.raw
    return content


@pytest.mark.parametrize("content", [b"", CONTENT, bytes(MAX_PIECE_BYTES), bytes(2 * MAX_PIECE_BYTES + 1)], ids=len)
async def test_what_another_task_kept_comes_in_pieces(pool: Pool, tmp_path: Any, content: bytes) -> None:
    limits = Limits(one=10**6, run=10**6, all=10**6)
    async with keeping.keeping(pool, tmp_path, limits=limits) as kept:
        work = await keeping.work(pool)
        await kept.keep(work, content, "dist/a.whl", size=100_000)

        assert await whole(kept, await getting(pool, task=str(work.task_id), artifact="dist/a.whl")) == content


async def test_what_was_uploaded_comes(kept: Keeping, work: Work, pool: Pool) -> None:
    await kept.keep(work, CONTENT)
    async with pool.acquire() as db:
        await queries.add_upload(db, Upload(sha(CONTENT), len(CONTENT)), by="ann")

    getter = await getting(pool, upload=sha(CONTENT))
    piece = await kept.parts.service.piece(wanted := want(getter))

    assert isinstance(piece, FilePiece)
    assert (piece.want_id, piece.size, piece.sha256, piece.raw) == (
        wanted.want_id,
        len(CONTENT),
        sha(CONTENT),
        CONTENT,
    )


@pytest.mark.parametrize("offset", [len(CONTENT), len(CONTENT) + 1, 2**50])
async def test_there_is_nothing_behind_the_end_of_a_file(kept: Keeping, work: Work, pool: Pool, offset: int) -> None:
    await kept.keep(work, CONTENT)
    getter = await getting(pool, task=str(work.task_id), artifact="a.log")

    assert (
        await problem(kept, want(getter, offset=offset)) == f"The file 'in/file' has 1100 bytes, and none at {offset}."
    )


async def test_a_file_is_for_the_attempt_whose_work_names_it(kept: Keeping, work: Work, pool: Pool) -> None:
    await kept.keep(work, CONTENT)
    getter = await getting(pool, task=str(work.task_id), artifact="a.log")
    stranger = Work(getter.task_id, work.agent_id)

    assert await problem(kept, want(stranger)) == f"The task {getter.task_id} has no attempt 1 of this agent."
    assert await problem(kept, want(getter, attempt=2)) == f"The task {getter.task_id} has no attempt 2 of this agent."
    assert await problem(kept, want(getter, "in/other")) == "The work names no file 'in/other'."
    assert await problem(kept, want(work)) == "The work names no file 'in/file'."


async def test_a_text_is_no_file_that_is_fetched(kept: Keeping, pool: Pool) -> None:
    assert "is a text" in await problem(kept, want(await getting(pool, text="hello")))


async def test_what_does_not_exist_is_said_not_to(kept: Keeping, work: Work, pool: Pool) -> None:
    nobody, digest = UUID(int=5), "ab" * 32
    await end(pool, work)
    await forget(pool, work)

    problems = [
        await problem(kept, want(await getting(pool, upload=digest))),
        await problem(kept, want(await getting(pool, task=str(nobody), artifact="a"))),
        await problem(kept, want(await getting(pool, task=str(work.task_id), artifact="a"))),
    ]

    assert problems == [
        f"Nothing with the SHA-256 {digest} was uploaded.",
        f"No task has the id {nobody}.",
        f"The task {work.task_id} kept no artifact 'a'.",
    ]


async def test_a_file_that_is_on_its_way_is_asked_for_again(kept: Keeping, work: Work, pool: Pool) -> None:
    getter = await getting(pool, task=str(work.task_id), artifact="a.log")

    running = await kept.parts.service.piece(want(getter))
    await end(pool, work)
    just_ended = await kept.parts.service.piece(want(getter))
    await forget(pool, work)
    await kept.send(work, cut(CONTENT)[0])
    arriving = await kept.parts.service.piece(want(getter))
    await kept.send(work, *cut(CONTENT))
    await kept.parts.assembling.run_once()

    assert (running, just_ended, arriving) == (None, None, None)
    assert await whole(kept, getter) == CONTENT


async def let_pass(pool: Pool, work: Work, seconds: float) -> None:
    """Let some time pass since a task ended."""
    async with pool.acquire() as db:
        await db.execute(
            "UPDATE task SET finished_at = finished_at - make_interval(secs => $2) WHERE task_id = $1",
            work.task_id,
            seconds,
        )


async def test_a_file_that_was_never_kept_is_soon_said_to_be_none(kept: Keeping, work: Work, pool: Pool) -> None:
    getter = await getting(pool, task=str(work.task_id), artifact="a.log")
    await end(pool, work)

    await let_pass(pool, work, 2)

    assert await problem(kept, want(getter)) == f"The task {work.task_id} kept no artifact 'a.log'."


async def test_what_an_agent_that_began_anew_still_sends_is_waited_for(kept: Keeping, work: Work, pool: Pool) -> None:
    getter = await getting(pool, task=str(work.task_id), artifact="a.log")
    await end(pool, work)
    async with pool.acquire() as db:
        await db.execute("UPDATE agent SET started_at = now() WHERE agent_id = $1", work.agent_id)

    await let_pass(pool, work, 20)
    on_its_way = await kept.parts.service.piece(want(getter))
    await let_pass(pool, work, 20)

    assert on_its_way is None
    assert await problem(kept, want(getter)) == f"The task {work.task_id} kept no artifact 'a.log'."


async def test_what_a_cancelled_task_still_sends_is_waited_for(kept: Keeping, work: Work, pool: Pool) -> None:
    getter = await getting(pool, task=str(work.task_id), artifact="a.log")
    await TaskService(pool, ageing=AGEING).cancel(work.task_id, by="ann")

    await let_pass(pool, work, 20)

    assert await kept.parts.service.piece(want(getter)) is None


async def test_a_file_that_is_missing_is_said_to_be_and_why(kept: Keeping, work: Work, pool: Pool) -> None:
    await kept.send(work, *cut(bytes(10_001), size=5000))
    getter = await getting(pool, task=str(work.task_id), artifact="a.log")

    said = await problem(kept, want(getter))

    assert said.startswith(f"The artifact 'a.log' of the task {work.task_id} is missing: it has 10001 bytes")


async def test_a_file_whose_content_is_gone_is_said_to_be(kept: Keeping, work: Work, pool: Pool) -> None:
    await kept.keep(work, CONTENT)
    kept.blob(CONTENT).unlink()
    getter = await getting(pool, task=str(work.task_id), artifact="a.log")

    assert await problem(kept, want(getter)) == f"The content with the SHA-256 {sha(CONTENT)} is gone from the store."


async def test_what_an_attempt_kept_that_does_not_count_is_given_to_nobody(
    kept: Keeping, work: Work, pool: Pool
) -> None:
    await kept.keep(work, b"first")
    getter = await getting(pool, task=str(work.task_id), artifact="a.log")
    await let_leases_run_out(pool)
    await LeaseService(pool, lease=LEASE, policy=AT_ONCE).reap(limit=10)
    while_it_waits = await kept.parts.service.piece(want(getter))
    again = Work(work.task_id, uuid4())
    await lease_to(pool, work.task_id, agent_id=again.agent_id)
    while_it_runs = await kept.parts.service.piece(want(getter))
    leases = LeaseService(pool, lease=LEASE, policy=AT_ONCE)
    await leases.accept([make_result(work.task_id, again.agent_id, attempt=2)])
    await forget(pool, work)

    assert (while_it_waits, while_it_runs) == (None, None)
    assert await problem(kept, want(getter)) == f"The task {work.task_id} kept no artifact 'a.log'."


async def test_of_several_attempts_that_kept_a_file_the_last_counts(kept: Keeping, work: Work, pool: Pool) -> None:
    await kept.keep(work, b"first")
    await let_leases_run_out(pool)
    await LeaseService(pool, lease=LEASE, policy=AT_ONCE).reap(limit=10)
    again = Work(work.task_id, uuid4())
    await lease_to(pool, work.task_id, agent_id=again.agent_id)
    await kept.send(again, *cut(b"second"), attempt=2)
    getter = await getting(pool, task=str(work.task_id), artifact="a.log")

    before = await kept.parts.service.piece(want(getter))
    await kept.parts.assembling.run_once()

    assert before is None
    assert await whole(kept, getter) == b"second"
