"""A dropped file rings at once, where the system has inotify; elsewhere the spool polls."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chiffon.spool.watch import FolderWatch
from common.loop import Wake
from tests.eventually import eventually


@asynccontextmanager
async def watching(folder: Path, bell: Wake) -> AsyncIterator[FolderWatch]:
    watch = FolderWatch(folder, bell)
    watch.open()
    watch.watch()
    try:
        yield watch
    finally:
        await watch.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    return tmp_path / "incoming"


async def rung(bell: Wake) -> None:
    async with asyncio.timeout(10):
        await bell.rung()


async def test_a_file_rings_that_is_moved_into_the_folder_or_written_there(tmp_path: Path, folder: Path) -> None:
    bell = Wake()
    (tmp_path / "draft").touch()
    async with watching(folder, bell):
        (tmp_path / "draft").rename(folder / "moved")
        await rung(bell)
        (folder / "written").write_text("{}")
        await rung(bell)


@pytest.mark.parametrize("gone", ["removed", "moved away"])
async def test_a_folder_that_goes_and_is_made_again_is_watched_again(tmp_path: Path, folder: Path, gone: str) -> None:
    bell = Wake()
    async with watching(folder, bell) as watch:
        if gone == "removed":
            shutil.rmtree(folder)
        else:
            folder.rename(tmp_path / "elsewhere")
        await rung(bell)
        await eventually(lambda: not watch.is_watching)
        watch.watch()
        assert not watch.is_watching

        folder.mkdir()
        watch.watch()
        assert watch.is_watching
        (folder / "dropped").write_text("{}")
        await rung(bell)


async def test_without_inotify_nothing_rings_and_nothing_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("asyncinotify.Inotify.__init__", refuse)
    async with watching(folder, Wake()) as watch:
        assert not watch.is_watching


async def test_where_no_watch_is_left_for_the_user_nothing_rings_and_nothing_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("asyncinotify.Inotify.add_watch", refuse)
    async with watching(folder, Wake()) as watch:
        assert not watch.is_watching
    assert "watch.no_inotify" in caplog.text
