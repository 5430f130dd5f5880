"""Pieces become the file that was announced, in whatever order and however often they come, or it is said why not."""

import asyncio
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from common.orders import ArtifactsStored
from orchestrator.artifacts.rules import UNKNOWN_ATTEMPT
from orchestrator.artifacts.service import ArtifactNotFound
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.service import TaskNotFound
from tests.factories import make_result, make_status
from tests.integration.artifacts import keeping
from tests.integration.artifacts.keeping import AT_ONCE, LATER, LIMITS, Keeping, Work, cut, sha
from tests.integration.ledger import lease_to
from tests.integration.orchestrator.conftest import LEASE
from tests.integration.orchestrator.ledger import let_leases_run_out

CONTENT = bytes(range(256)) * 10
WRONG = "f" * 64
RUN = UUID(int=77)


def stored(work: Work, *names: str, attempt: int = 1) -> tuple[UUID, ArtifactsStored]:
    return work.agent_id, ArtifactsStored(task_id=work.task_id, attempt=attempt, names=list(names))


def refused(work: Work, **reasons: str) -> tuple[UUID, ArtifactsStored]:
    return work.agent_id, ArtifactsStored(task_id=work.task_id, attempt=1, refused=reasons)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
async def test_pieces_in_any_order_and_repeated_become_the_file(
    kept: Keeping, work: Work, order: tuple[int, ...]
) -> None:
    pieces = cut(CONTENT)
    for number in order[:-1]:
        await kept.send(work, pieces[number], pieces[number])
        await kept.send(work, pieces[number])
        assert await kept.parts.assembling.run_once() == 0

    answers = await kept.send(work, pieces[order[-1]])
    settled = await kept.parts.assembling.run_once()

    assert (answers, settled) == ([], 1)
    assert kept.file(work.task_id, "a.log").read_bytes() == CONTENT
    assert kept.told == [stored(work, "a.log")]
    assert await kept.pieces() == 0


async def test_an_artifact_says_what_it_is_and_its_event_has_the_ids_of_its_task(kept: Keeping, work: Work) -> None:
    artifact = await kept.keep(work, CONTENT, "dist/a.whl", type="file")

    assert (artifact.task_id, artifact.attempt, artifact.name, artifact.path) == (
        work.task_id,
        1,
        "dist/a.whl",
        "dist/a.whl",
    )
    assert (artifact.type, artifact.sha256, artifact.size, artifact.missing) == (
        "file",
        sha(CONTENT),
        len(CONTENT),
        None,
    )
    assert artifact.stored_at is not None
    assert artifact.stored_at >= artifact.created_at
    [event] = await kept.events()
    assert (event.kind, event.task_id, event.agent_id, event.attempt, event.actor) == (
        Kind.ARTIFACT_STORED,
        work.task_id,
        work.agent_id,
        1,
        str(work.agent_id),
    )
    assert event.trace_id is not None
    assert event.request_id is not None
    assert event.data == {
        "artifact_id": str(artifact.artifact_id),
        "name": "dist/a.whl",
        "type": "file",
        "sha256": sha(CONTENT),
        "size": len(CONTENT),
    }


async def test_what_is_still_arriving_is_listed_and_cannot_be_read(kept: Keeping, work: Work) -> None:
    await kept.send(work, cut(CONTENT)[0])
    await kept.look_around()

    artifact = (await kept.of(work))["a.log"]

    assert (artifact.stored_at, artifact.missing) == (None, None)
    with pytest.raises(ArtifactNotFound, match="still arriving"):
        await kept.parts.service.open(artifact.artifact_id)
    assert not kept.root.exists()


async def test_pieces_that_overlap_become_the_file(kept: Keeping, work: Work) -> None:
    await kept.send(work, cut(CONTENT, size=1000)[1], cut(CONTENT, size=700)[0])
    await kept.send(work, *cut(CONTENT, size=1300))

    await kept.parts.assembling.run_once()

    assert kept.file(work.task_id, "a.log").read_bytes() == CONTENT


async def test_an_empty_file_is_a_file(kept: Keeping, work: Work) -> None:
    artifact = await kept.keep(work, b"", "empty")

    assert artifact.is_stored
    assert kept.file(work.task_id, "empty").read_bytes() == b""


async def test_files_of_several_tasks_in_one_message_are_kept_apart(kept: Keeping, work: Work, pool: Pool) -> None:
    other = await keeping.work(pool)
    messages = [
        make_status(one.task_id, one.agent_id, pieces=cut(content))
        for one, content in ((work, b"one"), (other, b"two"))
    ]

    await kept.parts.service.store(messages)

    assert await kept.parts.assembling.run_once() == 2
    assert kept.file(work.task_id, "a.log").read_bytes() == b"one"
    assert kept.file(other.task_id, "a.log").read_bytes() == b"two"
    assert sorted(kept.told, key=str) == sorted([stored(work, "a.log"), stored(other, "a.log")], key=str)


async def test_pieces_of_an_attempt_that_is_not_the_agents_are_refused(kept: Keeping, work: Work, pool: Pool) -> None:
    other = await keeping.work(pool)
    strangers = [Work(work.task_id, other.agent_id), Work(work.task_id, uuid4()), Work(uuid4(), other.agent_id)]

    answers = [await kept.send(stranger, *cut(CONTENT)) for stranger in strangers]
    late = await kept.send(work, *cut(CONTENT), attempt=2)

    assert answers == [[refused(stranger, **{"a.log": UNKNOWN_ATTEMPT})] for stranger in strangers]
    assert late[0][1].refused == {"a.log": UNKNOWN_ATTEMPT}
    assert await kept.of(work) == {}
    assert await kept.pieces() == 0


async def test_a_stranger_beside_the_agent_of_an_attempt_learns_nothing(kept: Keeping, work: Work) -> None:
    await kept.keep(work, CONTENT)
    stranger = uuid4()

    answers = await kept.parts.service.store(
        [make_status(work.task_id, agent_id, pieces=cut(CONTENT)) for agent_id in (work.agent_id, stranger)]
    )

    said = dict(answers)
    assert said[work.agent_id].names == ["a.log"]
    assert (said[stranger].names, said[stranger].refused) == ([], {"a.log": UNKNOWN_ATTEMPT})


async def test_an_attempt_that_has_lost_its_lease_or_ended_keeps_its_files(
    kept: Keeping, work: Work, pool: Pool
) -> None:
    first, *rest = cut(CONTENT)
    await kept.send(work, first)
    leases = LeaseService(pool, lease=LEASE, policy=AT_ONCE)
    await let_leases_run_out(pool)
    await leases.reap(limit=10)
    again = Work(work.task_id, uuid4())
    await lease_to(pool, work.task_id, agent_id=again.agent_id)
    await leases.accept([make_result(again.task_id, again.agent_id, attempt=2)])

    # The name goes to the file that is whole first.
    await kept.send(work, *rest)
    await kept.parts.assembling.run_once()
    await kept.send(again, *cut(b"second"), attempt=2)
    await kept.parts.assembling.run_once()

    found = await kept.parts.service.of_task(work.task_id)
    assert [(one.attempt, one.path) for one in sorted(found, key=lambda one: one.attempt)] == [
        (1, "a.log"),
        (2, f"{found[1].artifact_id}/a.log"),
    ]
    assert [kept.file(work.task_id, one.path).read_bytes() for one in found] == [CONTENT, b"second"]


async def test_a_file_with_another_digest_is_missing_and_its_agent_is_told(kept: Keeping, work: Work) -> None:
    pieces = cut(CONTENT, sha256=WRONG)
    await kept.send(work, *pieces)
    await kept.parts.assembling.run_once()
    reason = f"what arrived has the SHA-256 {sha(CONTENT)}, and not {WRONG}"

    again = await kept.send(work, pieces[0])

    assert (await kept.of(work))["a.log"].missing == reason
    assert kept.told == again == [refused(work, **{"a.log": reason})]
    [event] = await kept.events()
    assert (event.kind, event.data["reason"]) == (Kind.ARTIFACT_MISSING, reason)
    assert await kept.pieces() == 0
    assert not kept.blob(CONTENT).exists()
    assert await kept.look_around() == 0


async def test_what_is_sent_again_when_it_is_stored_is_answered_at_once_and_changes_nothing(
    kept: Keeping, work: Work
) -> None:
    await kept.keep(work, CONTENT)
    before = kept.told.copy()

    answers = await kept.send(work, *cut(CONTENT))
    settled = await kept.parts.assembling.run_once()

    assert answers == before == [stored(work, "a.log")]
    assert (settled, await kept.pieces(), len(await kept.events())) == (0, 0, 1)


async def test_another_content_under_a_name_that_is_kept_is_refused_and_the_first_stays(
    kept: Keeping, work: Work
) -> None:
    first, second = cut(CONTENT), cut(b"second")
    await kept.send(work, first[0])

    while_it_arrives = await kept.send(work, *second)
    await kept.send(work, *first)
    await kept.parts.assembling.run_once()
    afterwards = await kept.send(work, *second)

    reason = "another file was kept under this name before"
    assert while_it_arrives == afterwards == [refused(work, **{"a.log": reason})]
    assert kept.file(work.task_id, "a.log").read_bytes() == CONTENT


async def test_the_files_of_a_run_lie_in_one_folder_and_none_hides_another(kept: Keeping, pool: Pool) -> None:
    steps = [await keeping.work(pool, run_id=RUN) for _ in range(3)]
    contents = [b"first", b"second", b"first"]
    for step, content in zip(steps, contents, strict=True):
        await kept.keep(step, content, "build.log")
    await kept.keep(steps[0], b"other", "build.log/x")

    found = await kept.parts.service.of_run(RUN)

    ids = [one.artifact_id for one in found]
    paths = ["build.log", f"{ids[1]}/build.log", f"{ids[2]}/build.log", f"{ids[3]}/build.log/x"]
    assert [one.path for one in found] == paths
    assert [kept.file(RUN, path).read_bytes() for path in paths] == [*contents, b"other"]
    assert [sha(kept.file(RUN, one.path).read_bytes()) for one in found] == [one.sha256 for one in found]
    assert kept.blob(b"first").stat().st_nlink == 3
    assert [one.path for one in await kept.parts.service.of_task(steps[1].task_id)] == [paths[1]]


async def test_there_are_no_artifacts_of_a_task_that_does_not_exist(kept: Keeping) -> None:
    with pytest.raises(TaskNotFound):
        await kept.parts.service.of_task(uuid4())
    assert await kept.parts.service.of_run(uuid4()) == []


async def test_a_file_has_up_to_the_limit_and_no_byte_more(kept: Keeping, work: Work) -> None:
    fits = await kept.keep(work, bytes(LIMITS.one), "fits", size=5000)

    answers = await kept.send(work, *cut(bytes(LIMITS.one + 1), "large", size=5000))

    assert fits.is_stored
    reason = "it has 10001 bytes, and at most 10000 are kept of one file (max_artifact_bytes)"
    assert answers == [refused(work, large=reason)]
    assert (await kept.of(work))["large"].missing == reason
    [_, event] = await kept.events()
    assert (event.kind, event.data["reason"], event.data["name"]) == (Kind.ARTIFACT_MISSING, reason, "large")
    assert await kept.pieces() == 0


async def test_the_files_of_a_run_have_up_to_the_limit_together_from_when_they_are_announced(
    kept: Keeping, pool: Pool
) -> None:
    steps = [await keeping.work(pool, run_id=RUN) for _ in range(3)]
    other = await keeping.work(pool)
    await kept.keep(steps[0], bytes(9000), "first")
    await kept.send(steps[1], cut(bytes(8000), "second", size=5000)[0])

    refusal = await kept.send(steps[2], *cut(bytes(3001), "third"))
    fitting = await kept.send(steps[2], *cut(bytes(3000), "fourth"))
    elsewhere = await kept.send(other, *cut(bytes(9000), "third"))

    reason = (
        "with its 3001 bytes the run would keep 20001, and at most 20000 are kept of a run (max_run_artifact_bytes)"
    )
    assert refusal == [refused(steps[2], third=reason)]
    assert fitting == elsewhere == []


async def test_everything_together_has_up_to_the_limit(pool: Pool, tmp_path: Path) -> None:
    async with keeping.keeping(pool, tmp_path, limits=replace(LIMITS, all=500)) as kept:
        works = [await keeping.work(pool) for _ in range(3)]
        await kept.keep(works[0], bytes(300))

        refusal = await kept.send(works[1], *cut(bytes(201)))
        fitting = await kept.send(works[2], *cut(bytes(200)))

        reason = "the store holds 300 bytes, and with its 201 it would exceed 500 (max_artifacts_bytes)"
        assert (refusal, fitting) == ([refused(works[1], **{"a.log": reason})], [])


async def test_the_limit_on_everything_counts_what_other_orchestrators_let_in(pool: Pool, tmp_path: Path) -> None:
    limits, work = replace(LIMITS, all=500), await keeping.work(pool)
    async with keeping.keeping(pool, tmp_path, limits=limits) as one, keeping.keeping(pool, tmp_path) as other:
        await one.send(work, *cut(b"x", "first"))
        await other.send(work, *cut(bytes(400), "second"))
        one.clock.advance(seconds=10)

        answers = await one.send(work, *cut(bytes(100), "third"))

        assert "the store holds 401 bytes" in answers[0][1].refused["third"]


async def test_a_run_keeps_so_many_files_and_more_are_not_even_noted(pool: Pool, tmp_path: Path) -> None:
    async with keeping.keeping(pool, tmp_path, limits=replace(LIMITS, files=3)) as kept:
        steps = [await keeping.work(pool, run_id=RUN) for _ in range(2)]
        await kept.send(steps[0], *(cut(b"x", str(number))[0] for number in range(2)))

        answers = await kept.send(steps[1], *(cut(b"x", str(number))[0] for number in range(3)))

        reason = "the run keeps 3 files already, and no more are kept"
        assert answers == [refused(steps[1], **{"1": reason, "2": reason})]
        assert len(await kept.parts.service.of_run(RUN)) == 3
        assert await kept.send(steps[1], *cut(b"x", "0")) == []


async def test_orchestrators_that_let_files_in_at_once_keep_to_the_limit_of_the_run(pool: Pool, tmp_path: Path) -> None:
    steps = [await keeping.work(pool, run_id=RUN) for _ in range(6)]
    async with keeping.keeping(pool, tmp_path) as one, keeping.keeping(pool, tmp_path) as other:
        sites = [one, other] * 3

        await asyncio.gather(*(site.send(step, cut(bytes(5001))[0]) for site, step in zip(sites, steps, strict=True)))

        found = await one.parts.service.of_run(RUN)
        assert sum(artifact.missing is None for artifact in found) == 3
        assert len(found) == 6


async def test_orchestrators_with_one_folder_make_one_file_of_pieces_that_reach_any_of_them(
    pool: Pool, tmp_path: Path, work: Work
) -> None:
    async with keeping.keeping(pool, tmp_path) as one, keeping.keeping(pool, tmp_path) as other:
        sites, pieces = [one, other], cut(CONTENT, size=100)
        await asyncio.gather(*(sites[number % 2].send(work, piece) for number, piece in enumerate(pieces)))
        for site in sites:
            site.clock.advance(seconds=10)

        settled = await asyncio.gather(*(site.parts.assembling.run_once() for site in sites))

        assert sum(settled) == 1
        assert len(await one.events()) == 1
        assert one.told + other.told == [stored(work, "a.log")]
        assert one.file(work.task_id, "a.log").read_bytes() == CONTENT


async def test_orchestrators_that_store_into_one_run_at_once_give_every_file_a_path_of_its_own(
    pool: Pool, tmp_path: Path
) -> None:
    steps = [await keeping.work(pool, run_id=RUN) for _ in range(6)]
    async with keeping.keeping(pool, tmp_path) as one, keeping.keeping(pool, tmp_path) as other:
        for number, step in enumerate(steps):
            await one.send(step, *cut(b"content %d" % number, "build.log"))

        while [artifact for artifact in await one.parts.service.of_run(RUN) if artifact.is_open]:
            await asyncio.gather(one.look_around(), other.look_around())

        found = await one.parts.service.of_run(RUN)
        assert len({artifact.path for artifact in found}) == 6
        assert all(sha(one.file(RUN, artifact.path).read_bytes()) == artifact.sha256 for artifact in found)


async def test_pieces_that_overlap_without_end_take_twice_the_room_of_their_file_at_most(
    kept: Keeping, work: Work
) -> None:
    content = bytes(1000)
    for start in range(1, 100):
        await kept.send(work, cut(content, size=900)[0].model_copy(update={"offset": start}))

    async with kept.pool.acquire() as db:
        size = await db.fetchval("SELECT sum(octet_length(data)) FROM artifact_piece")
    assert size <= 2 * 1000 + 900


async def test_what_never_becomes_whole_is_given_up_and_its_pieces_go(kept: Keeping, work: Work) -> None:
    await kept.send(work, cut(CONTENT)[0])
    await kept.age(LATER)

    settled = await kept.look_around()

    reason = "not all of it arrived within 7 days"
    assert settled == 1
    assert (await kept.of(work))["a.log"].missing == reason
    assert await kept.pieces() == 0
    assert kept.told == [refused(work, **{"a.log": reason})]
    assert [event.data["reason"] for event in await kept.events()] == [reason]


async def test_what_is_whole_is_stored_however_late(kept: Keeping, work: Work) -> None:
    await kept.send(work, *cut(CONTENT))
    await kept.age(LATER)

    await kept.look_around()

    assert (await kept.of(work))["a.log"].is_stored


async def test_pieces_that_came_into_the_ledger_while_their_artifact_was_settled_are_cleaned_up(
    kept: Keeping, work: Work
) -> None:
    artifact = await kept.keep(work, CONTENT)
    async with kept.pool.acquire() as db:
        await db.execute("INSERT INTO artifact_piece VALUES ($1, 0, 'stray')", artifact.artifact_id)

    kept.clock.advance(seconds=3600)
    await kept.look_around()

    assert await kept.pieces() == 0
    assert (await kept.of(work))["a.log"].is_stored


async def test_a_ledger_whose_clock_went_back_changes_no_path(kept: Keeping, pool: Pool) -> None:
    steps = [await keeping.work(pool, run_id=RUN) for _ in range(2)]
    first = await kept.keep(steps[0], b"first", "build.log")
    async with pool.acquire() as db:
        await db.execute("UPDATE artifact SET stored_at = stored_at + interval '1 hour'")

    second = await kept.keep(steps[1], b"second", "build.log")

    assert (first.path, second.path) == ("build.log", f"{second.artifact_id}/build.log")
    assert (await kept.of(steps[0]))["build.log"].path == "build.log"
    assert kept.file(RUN, second.path).read_bytes() == b"second"


async def test_who_asks_hears_what_became_of_the_files_of_an_attempt(kept: Keeping, work: Work) -> None:
    await kept.keep(work, CONTENT, "there")
    await kept.send(work, *cut(bytes(10_001), "large", size=5000), cut(CONTENT, "open")[0])

    own = await kept.parts.service.settled(work.task_id, 1, work.agent_id)
    of_others = await kept.parts.service.settled(work.task_id, 1, uuid4())

    assert (own.names, list(own.refused)) == (["there"], ["large"])
    assert (of_others.names, of_others.refused) == ([], {})
