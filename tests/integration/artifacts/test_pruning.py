"""What was kept for long enough is removed when all is over, and nothing that something else still has."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from orchestrator.artifacts import queries
from orchestrator.artifacts.assembling import CLEAN_UP
from orchestrator.artifacts.service import ArtifactNotFound
from orchestrator.artifacts.store import Store
from orchestrator.artifacts.streams import Stream
from orchestrator.database.pool import Pool, transaction
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from tests.factories import make_result
from tests.integration.artifacts import keeping
from tests.integration.artifacts.keeping import AT_ONCE, Keeping, Work, sha
from tests.integration.artifacts.keeping import keeping as keep_artifacts
from tests.integration.orchestrator.conftest import LEASE
from tests.unit.orchestrator.artifacts.disks import Died

CONTENT = b"hello world" * 100
DAYS = timedelta(days=30)
RUN, OTHER = UUID(int=77), UUID(int=78)
END_RUN = "UPDATE run SET status = 'failed', finished_at = now() WHERE run_id = $1"
RETRY_RUN = "UPDATE run SET status = 'running', finished_at = NULL WHERE run_id = $1"
# Ended runs and tasks, stored files and uploads become older.
AGE = """
    WITH runs AS (UPDATE run SET finished_at = finished_at - $1::interval),
         tasks AS (UPDATE task SET finished_at = finished_at - $1::interval WHERE finished_at IS NOT NULL),
         uploads AS (UPDATE upload SET at = at - $1::interval)
    UPDATE artifact SET stored_at = stored_at - $1::interval
"""


@pytest.fixture
async def kept(pool: Pool, tmp_path: Path) -> AsyncIterator[Keeping]:
    async with keep_artifacts(pool, tmp_path / "artifacts", keep=DAYS) as kept:
        yield kept


async def end(kept: Keeping, work: Work) -> None:
    await LeaseService(kept.pool, lease=LEASE, policy=AT_ONCE).accept([make_result(work.task_id, work.agent_id)])


async def age(kept: Keeping, by: timedelta = DAYS + timedelta(hours=1)) -> None:
    async with kept.pool.acquire() as db:
        await db.execute(AGE, by)


async def clean_up(kept: Keeping) -> None:
    kept.clock.advance(seconds=CLEAN_UP.total_seconds())
    await kept.parts.assembling.run_once()


async def uploaded(kept: Keeping, content: bytes) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    stream = Stream(receive, Headers({"content-type": "application/octet-stream"}))
    await kept.parts.uploads.store(stream, by="ann", trace_id=RUN)


async def uploads(kept: Keeping) -> list[str]:
    async with kept.pool.acquire() as db:
        return [row["sha256"] for row in await db.fetch("SELECT sha256 FROM upload ORDER BY at")]


async def test_a_file_is_removed_when_its_task_is_over_for_long_enough_and_says_so(kept: Keeping, work: Work) -> None:
    there = await kept.keep(work, CONTENT)
    await end(kept, work)
    await age(kept, DAYS - timedelta(hours=1))
    await clean_up(kept)
    held_before = (await kept.of(work))["a.log"]
    await age(kept, timedelta(hours=2))
    await clean_up(kept)

    gone = (await kept.of(work))["a.log"]
    with pytest.raises(ArtifactNotFound, match="is not there: it was removed on") as caught:
        await kept.parts.service.open(there.artifact_id)
    async with kept.pool.acquire() as db:
        held = await queries.held_in_all(db)
    told = await kept.events(Kind.ARTIFACT_REMOVED)

    assert (held_before.is_stored, gone.is_stored, held) == (True, False, 0)
    assert f"{kept.clock.now():%Y-%m-%d}" in str(caught.value)
    assert not kept.blob(CONTENT).exists()
    assert list((kept.root / "workflow_runs").iterdir()) == []
    assert [(event.task_id, event.attempt, event.data) for event in told] == [
        (
            work.task_id,
            1,
            {
                "artifact_id": str(there.artifact_id),
                "name": "a.log",
                "type": "build_log",
                "sha256": sha(CONTENT),
                "size": len(CONTENT),
                "reason": gone.missing,
            },
        )
    ]


async def test_nothing_is_removed_where_nobody_asked_for_it(pool: Pool, tmp_path: Path, work: Work) -> None:
    async with keep_artifacts(pool, tmp_path / "artifacts") as kept:
        await kept.keep(work, CONTENT)
        await uploaded(kept, b"site")
        await end(kept, work)
        await age(kept, 100 * DAYS)
        await clean_up(kept)

        assert (await kept.of(work))["a.log"].is_stored
        assert await uploads(kept) == [sha(b"site")]


async def test_the_files_of_a_run_stay_while_it_goes_on_also_when_it_is_retried(kept: Keeping, pool: Pool) -> None:
    step = await keeping.work(pool, run_id=RUN)
    await kept.keep(step, CONTENT)
    await end(kept, step)
    stored = list[bool]()
    for change in ("", END_RUN, RETRY_RUN, END_RUN):
        async with pool.acquire() as db:
            if change:
                await db.execute(change, RUN)
        await age(kept)
        await clean_up(kept)
        stored.append((await kept.of(step))["a.log"].is_stored)
        if change == END_RUN and len(stored) == 2:
            step = await keeping.work(pool, run_id=RUN)
            await kept.keep(step, CONTENT)
            await end(kept, step)

    assert stored == [True, False, True, False]


async def test_a_content_stays_as_long_as_anything_has_it(kept: Keeping, work: Work, pool: Pool) -> None:
    await kept.keep(work, CONTENT)
    await end(kept, work)
    await age(kept)
    other = await keeping.work(pool)
    await kept.keep(other, CONTENT)
    await clean_up(kept)
    with_other = kept.blob(CONTENT).read_bytes()
    await uploaded(kept, CONTENT)
    await end(kept, other)
    async with pool.acquire() as db:
        await db.execute("UPDATE artifact SET stored_at = stored_at - $1::interval", 2 * DAYS)
        await db.execute("UPDATE task SET finished_at = finished_at - $1::interval", 2 * DAYS)
    await clean_up(kept)

    assert with_other == CONTENT
    assert not (await kept.of(other))["a.log"].is_stored
    assert kept.blob(CONTENT).read_bytes() == CONTENT
    assert kept.file(other.task_id, "a.log").exists() is False


async def test_an_upload_is_removed_unless_work_names_it_that_has_not_ended_or_it_came_again(
    kept: Keeping, pool: Pool
) -> None:
    for content in (b"named", b"again", b"old"):
        await uploaded(kept, content)
    getter = await keeping.work(
        pool,
        work_type="shell_script",
        parameters={"script": "true", "files": {"in": {"upload": sha(b"named")}}},
    )
    await age(kept)
    await uploaded(kept, b"again")
    await clean_up(kept)
    left = await uploads(kept)
    await end(kept, getter)
    await clean_up(kept)

    assert left == [sha(b"named"), sha(b"again")]
    assert await uploads(kept) == [sha(b"again")]
    assert [kept.blob(content).exists() for content in (b"named", b"again", b"old")] == [False, True, False]
    told = await kept.events(Kind.ARTIFACT_REMOVED)
    assert [event.data["sha256"] for event in told] == [sha(b"old"), sha(b"named")]


async def test_a_content_that_is_being_stored_again_is_not_removed_meanwhile(
    kept: Keeping, work: Work, pool: Pool
) -> None:
    await kept.keep(work, CONTENT)
    await end(kept, work)
    await age(kept)

    async with transaction(pool) as db:
        await queries.hold_content(db, sha(CONTENT))
        await clean_up(kept)
        while_it_is_held = (await kept.of(work))["a.log"].is_stored
    await clean_up(kept)

    assert while_it_is_held
    assert not (await kept.of(work))["a.log"].is_stored


async def test_paths_of_files_that_stay_are_the_same_when_others_are_gone(kept: Keeping, pool: Pool) -> None:
    first, second = await keeping.work(pool, run_id=RUN), await keeping.work(pool, run_id=RUN)
    await kept.keep(first, b"first")
    await end(kept, first)
    async with pool.acquire() as db:
        await db.execute(END_RUN, RUN)
    await age(kept)
    await kept.keep(second, b"second")
    path = (await kept.of(second))["a.log"].path
    await clean_up(kept)

    assert not (await kept.of(first))["a.log"].is_stored
    assert path != "a.log"
    assert (await kept.of(second))["a.log"].path == path
    assert kept.file(RUN, path).read_bytes() == b"second"


async def test_what_a_process_that_died_had_removed_is_removed_by_the_next(
    kept: Keeping, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.keep(work, CONTENT)
    await end(kept, work)
    await age(kept)

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Store, "remove", die)
        with pytest.raises(Died):
            await clean_up(kept)
    before = (await kept.of(work))["a.log"].is_stored
    await clean_up(kept)

    assert before
    assert not (await kept.of(work))["a.log"].is_stored
    assert not kept.blob(CONTENT).exists()
    assert len(await kept.events(Kind.ARTIFACT_REMOVED)) == 1


async def test_nothing_counts_as_removed_while_the_store_is_away(kept: Keeping, work: Work) -> None:
    await kept.keep(work, CONTENT)
    await end(kept, work)
    await age(kept)
    kept.root.rename(kept.root.with_name("elsewhere"))
    await clean_up(kept)
    kept.root.with_name("elsewhere").rename(kept.root)

    assert (await kept.of(work))["a.log"].is_stored
    await clean_up(kept)
    assert not kept.blob(CONTENT).exists()
