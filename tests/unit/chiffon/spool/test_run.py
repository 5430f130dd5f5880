"""A dropped file is worked on when it is whole, as one task, whatever is dropped or stopped meanwhile."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chiffon.spool.run import Plan, run_spool
from tests.eventually import eventually
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator

HALF = '{"work_type": "echo", "parameters": {"mess'
SECOND = 1_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    return tmp_path


@asynccontextmanager
async def spooling(root: Path, url: str, **plan: Any) -> AsyncIterator[None]:
    """Run a spool, and stop it in the middle of whatever it does."""
    running = asyncio.create_task(run_spool(Plan(root, **plan), url))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def drop(root: Path, name: str, message: str) -> None:
    draft = root / f"{name}.draft"
    draft.write_text(json.dumps({"work_type": "echo", "priority": 3, "parameters": {"message": message}}))
    draft.rename(root / "incoming" / name)


def names(root: Path, folder: str) -> list[str]:
    return sorted(path.name for path in (root / folder).iterdir())


def results(root: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (root / "outgoing").glob("*.json")]


async def test_a_file_that_is_being_written_stays_where_it_is_until_it_is_whole(
    fake: FakeOrchestrator, url: str, root: Path
) -> None:
    drop(root, "whole.json", "whole")
    half = root / "incoming" / "half.json"
    half.write_text(HALF)
    written = half.stat().st_mtime_ns - SECOND
    os.utime(half, ns=(written, written))

    async with spooling(root, url, grace=timedelta(hours=1)):
        await eventually(lambda: len(results(root)) == 1)
        assert (names(root, "incoming"), names(root, "failed")) == (["half.json"], [])

        with half.open("a") as file:
            file.write('age": "half"}, "priority": 3}')
        await eventually(lambda: len(results(root)) == 2)

    assert [sent["parameters"]["message"] for sent in fake.dispatches] == ["whole", "half"]


async def test_a_file_that_is_never_whole_is_set_aside_when_its_writer_had_time(
    fake: FakeOrchestrator, url: str, root: Path
) -> None:
    (root / "incoming" / "half.json").write_text(HALF)

    async with spooling(root, url, grace=timedelta(seconds=0.2)):
        await eventually(lambda: (root / "failed").is_dir() and "half.json" in names(root, "failed"))

    assert fake.dispatches == []


async def test_a_file_is_the_same_task_after_a_stop_and_another_of_its_name_waits_behind_it(
    fake: FakeOrchestrator, url: str, root: Path
) -> None:
    drop(root, "a.json", "first")
    fake.outcome = {"status": "running"}
    async with spooling(root, url):
        await eventually(lambda: len(fake.feeds) == 1)
    assert names(root, "processing") == ["a.json"]

    drop(root, "a.json", "second")
    [first] = fake.dispatches
    fake.outcome = {"status": "completed", "exit_code": 0}
    fake.tasks[first["task_id"]]["status"] = "completed"
    async with spooling(root, url):
        await eventually(lambda: len(results(root)) == 2)

    again, second = fake.dispatches[1:]
    assert again == first
    assert (second["parameters"]["message"], second["request_id"] != first["request_id"]) == ("second", True)
    assert {result["task_id"] for result in results(root)} == {first["task_id"], second["task_id"]}
    assert (names(root, "incoming"), names(root, "processing"), names(root, "failed")) == ([], [], [])


@pytest.mark.parametrize("lost", [1, 5])
async def test_a_file_whose_dispatch_was_not_answered_is_the_same_task_again(
    fake: FakeOrchestrator, url: str, root: Path, lost: int
) -> None:
    drop(root, "a.json", "first")
    fake.lost_answers = lost

    async with spooling(root, url):
        await eventually(lambda: len(results(root)) == 1)

    assert fake.dispatches == [fake.dispatches[0]] * (lost + 1)
    assert len(fake.tasks) == 1
