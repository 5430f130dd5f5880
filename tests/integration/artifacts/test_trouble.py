"""Whatever happens to the store or its user, a file is whole, or missing with a reason, and nothing else stops."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from common.messages import WantFile
from common.orders import ArtifactsStored
from orchestrator.artifacts import service, store
from orchestrator.artifacts.assembling import AssembleArtifacts
from orchestrator.artifacts.model import AWAY
from orchestrator.artifacts.pruning import PruneArtifacts
from orchestrator.artifacts.store import ContentGone, Draft, Store, StoreAway
from orchestrator.database.pool import Pool
from orchestrator.events.model import Kind
from tests.integration.artifacts import keeping
from tests.integration.artifacts.keeping import AWAY_LATER, Keeping, Work, cut
from tests.unit.orchestrator.artifacts.disks import Died, dying

CONTENT = b"hello world" * 100
GONE = f"{AWAY}: No such file or directory"
RUN = UUID(int=77)


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def names_said(kept: Keeping) -> list[tuple[list[str], dict[str, str]]]:
    return [(order.names, order.refused) for _, order in kept.told]


async def test_a_file_that_comes_while_the_disk_is_full_is_missing_until_there_is_room(
    kept: Keeping, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", failing(errno.ENOSPC))
        waits = await kept.keep(work, CONTENT)
        told_meanwhile = names_said(kept)
    await kept.look_around()

    assert waits.missing == f"{AWAY}: its disk is full: No space left on device"
    assert (told_meanwhile, names_said(kept)) == ([], [(["a.log"], {})])
    assert (await kept.of(work))["a.log"].is_stored
    assert kept.file(work.task_id, "a.log").read_bytes() == CONTENT
    assert [event.kind for event in await kept.events()] == [Kind.ARTIFACT_MISSING, Kind.ARTIFACT_STORED]
    assert await kept.pieces() == 0


async def test_a_disk_that_hangs_is_a_store_that_is_away(
    kept: Keeping, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_again, seal = threading.Event(), Draft.seal

    def hang_before_syncing(self: Draft) -> None:
        answers_again.wait(30)
        seal(self)

    with monkeypatch.context() as patched:
        patched.setattr(Draft, "seal", hang_before_syncing)
        patched.setattr(store, "ANSWER_SECONDS", 0.05)
        try:
            async with asyncio.timeout(10):
                waits = await kept.keep(work, CONTENT)
        finally:
            answers_again.set()
    await kept.look_around()

    assert waits.missing == f"{AWAY}: it does not answer"
    assert (await kept.of(work))["a.log"].is_stored


async def test_while_the_store_is_away_files_are_marked_as_missing_and_stored_when_it_is_back(
    kept: Keeping, work: Work
) -> None:
    await kept.keep(work, b"before", "before")
    kept.root.rename(kept.root.with_name("elsewhere"))
    kept.told.clear()

    away = [await kept.keep(work, CONTENT, "a"), await kept.keep(work, b"other", "b")]
    repeated = await kept.send(work, *cut(CONTENT, "a"))
    for _ in range(3):
        assert await kept.look_around() == 0
    kept.root.with_name("elsewhere").rename(kept.root)
    settled = await kept.look_around()

    assert [one.missing for one in away] == [GONE, GONE]
    assert (repeated, settled) == ([], 2)
    assert {one.missing for one in (await kept.of(work)).values()} == {None}
    assert kept.file(work.task_id, "a").read_bytes() == CONTENT
    assert sorted(name for names, _ in names_said(kept) for name in names) == ["a", "b"]
    kinds = [(event.kind, event.data["name"]) for event in await kept.events()][1:]
    assert sorted(kinds) == sorted(
        (kind, name) for name in "ab" for kind in (Kind.ARTIFACT_MISSING, Kind.ARTIFACT_STORED)
    )
    assert await kept.pieces() == 0


async def test_what_a_store_is_away_for_counts_within_the_limits(kept: Keeping, work: Work) -> None:
    await kept.keep(work, b"before", "before")
    kept.root.rename(kept.root.with_name("elsewhere"))
    await kept.keep(work, bytes(9000), "a", size=5000)
    await kept.keep(work, bytes(9000), "b", size=5000)

    answers = await kept.send(work, *cut(bytes(9000), "c", size=5000))

    assert "the run would keep 27006" in answers[0][1].refused["c"]


async def test_a_store_that_stays_away_is_waited_for_a_day_and_no_longer(kept: Keeping, work: Work) -> None:
    await kept.keep(work, b"before", "before")
    kept.root.rename(kept.root.with_name("elsewhere"))
    await kept.keep(work, CONTENT, "a")
    kept.told.clear()
    await kept.age(AWAY_LATER)

    settled = await kept.look_around()

    reason = "its store was away for too long: No such file or directory"
    assert settled == 1
    assert (await kept.of(work))["a"].missing == reason
    assert names_said(kept) == [([], {"a": reason})]
    assert await kept.pieces() == 0


async def test_a_symbolic_link_in_the_folder_of_a_run_keeps_its_files_inside_and_no_other_run_from_going_on(
    kept: Keeping, work: Work, pool: Pool, tmp_path: Path
) -> None:
    await kept.keep(work, b"before", "before")
    step, outside = await keeping.work(pool, run_id=RUN), tmp_path / "outside"
    outside.mkdir()
    (kept.root / "workflow_runs" / str(RUN)).symlink_to(outside)

    lost, there = await kept.keep(step, CONTENT), await kept.keep(work, CONTENT)

    assert lost.missing == "something else stands where it belongs in the store: Not a directory"
    assert there.is_stored
    assert list(outside.iterdir()) == []


async def test_one_file_that_cannot_be_stored_for_a_fault_of_the_program_holds_up_no_other(
    kept: Keeping, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_path = Store.give_path

    def fail_for_one(self: Store, sha256: str, folder: UUID, path: str) -> None:
        if path == "b":
            raise RuntimeError("a fault")
        give_path(self, sha256, folder, path)

    monkeypatch.setattr(Store, "give_path", fail_for_one)
    await kept.send(work, *(cut(name.encode(), name)[0] for name in "abc"))
    with pytest.raises(RuntimeError, match="a fault"):
        await kept.parts.assembling.run_once()

    found = await kept.of(work)
    assert {name: one.is_stored for name, one in found.items()} == {"a": True, "b": False, "c": True}
    assert sorted(names_said(kept)[0][0]) == ["a", "c"]


async def test_a_process_that_dies_at_any_step_leaves_what_its_next_life_stores(
    kept: Keeping, work: Work, pool: Pool
) -> None:
    last, has_died = 0, True
    while has_died:
        name, content = f"dist/{last}", b"content %d" % last
        await kept.send(work, *cut(content, name, size=4))
        with dying(last) as steps, suppress(Died):
            await kept.parts.assembling.run_once()
        was_stored, has_died = (await kept.of(work))[name].is_stored, steps.has_died
        # What dies last only cleans up.
        assert was_stored or has_died

        async with keeping.keeping(pool, kept.root) as next_life:
            await next_life.parts.assembling.run_once()
            assert (next_life.told == []) == was_stored

        assert kept.file(work.task_id, name).read_bytes() == content
        assert await kept.pieces() == 0
        last += 1

    assert last > 10
    names = [event.data["name"] for event in await kept.events(Kind.ARTIFACT_STORED)]
    assert names == [f"dist/{number}" for number in range(last)]


async def test_an_agent_that_was_not_told_because_its_orchestrator_died_is_told_when_it_sends_again(
    kept: Keeping, work: Work
) -> None:
    async def die(_: Sequence[tuple[UUID, ArtifactsStored]]) -> None:
        raise Died

    folder = Store(kept.root)
    pruning = PruneArtifacts(kept.pool, folder, kept.clock, keep=None)
    dead = AssembleArtifacts(kept.pool, folder, kept.clock, tell=die, wake=kept.parts.wake, pruning=pruning)
    await kept.send(work, *cut(CONTENT))
    with pytest.raises(Died):
        await dead.run_once()
    assert await kept.look_around() == 0

    answers = await kept.send(work, *cut(CONTENT))

    assert [(order.names, order.refused) for _, order in answers] == [(["a.log"], {})]
    assert len(await kept.events()) == 1


async def test_a_disk_that_hangs_holds_up_neither_reports_nor_whoever_asks_for_a_file(
    kept: Keeping, work: Work, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = await kept.keep(work, CONTENT)
    getting = await keeping.work(
        pool,
        work_type="shell_script",
        parameters={"script": "true", "files": {"in": {"task": str(work.task_id), "artifact": "a.log"}}},
    )
    answers_again, read, write = threading.Event(), Store.read, Draft.write

    def hang_before_reading(self: Store, *arguments: Any) -> bytes:
        answers_again.wait(30)
        return read(self, *arguments)

    def hang_before_writing(self: Draft, data: bytes) -> None:
        answers_again.wait(30)
        write(self, data)

    monkeypatch.setattr(Store, "read", hang_before_reading)
    monkeypatch.setattr(Draft, "write", hang_before_writing)
    monkeypatch.setattr(service, "READ_SECONDS", 0.05)
    await kept.send(work, *cut(CONTENT, "b"))
    storing = asyncio.create_task(kept.parts.assembling.run_once())
    try:
        async with asyncio.timeout(10):
            await kept.send(work, *cut(CONTENT, "b"), *cut(CONTENT, "c"))
            want = WantFile(
                want_id=there.artifact_id, agent_id=getting.agent_id, task_id=getting.task_id, attempt=1, path="in"
            )
            pieces = [await kept.parts.service.piece(want) for _ in range(6)]
    finally:
        answers_again.set()
    await storing

    assert [piece.problem for piece in pieces if piece] == ["The store is away: it does not answer."] * 6
    assert (await kept.of(work))["b"].is_stored


async def test_a_content_that_is_gone_or_away_is_told_to_who_wants_to_read_it(kept: Keeping, work: Work) -> None:
    artifact = await kept.keep(work, CONTENT)
    kept.blob(CONTENT).unlink()
    with pytest.raises(ContentGone, match="is gone from the store"):
        await kept.parts.service.open(artifact.artifact_id)

    kept.root.rename(kept.root.with_name("elsewhere"))
    with pytest.raises(StoreAway):
        await kept.parts.service.open(artifact.artifact_id)
