"""What the broker in a directory promises beyond the contract of all brokers."""

import asyncio
import json
import logging
from datetime import timedelta
from pathlib import Path

import pytest

from common.broker.base import Address, Outgoing, Queue
from common.broker.filesystem import WrongFileUrl, open_file_broker, root_of
from common.broker.filesystem_names import FileName, folder_of, queue_of
from common.broker.filesystem_store import FileStore
from common.broker.topology import WORK
from tests.eventually import eventually

QUEUE = Queue("work.files", (Address(WORK, "work.files"),), has_priorities=True)


def message(body: bytes = b"body", priority: int = 3) -> Outgoing:
    return Outgoing(QUEUE.bindings[0], body, "test", priority)


def folder(root: Path, part: str) -> Path:
    return root / "queues" / QUEUE.name / part


def test_names_sort_by_priority_then_by_time_and_keep_their_place_when_redelivered() -> None:
    best = FileName(4, 2, 0, "a" * 32)
    older, newer = FileName(6, 1, 0, "b" * 32), FileName(6, 3, 9, "a" * 32)

    assert sorted(str(name) for name in (newer, older.marked(), best)) == [str(best), str(older.marked()), str(newer)]
    assert FileName.parse(str(older.marked())) == older.marked()
    assert FileName.parse("draft.tmp") is None


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "work.infra", "a/b"])
def test_a_queue_never_leads_out_of_the_root(name: str) -> None:
    assert "/" not in folder_of(name)
    assert folder_of(name) not in (".", "..")
    assert queue_of(folder_of(name)) == name


@pytest.mark.parametrize("url", ["file://", "file:///", "file://elsewhere/bus", "file:///a%00b"])
def test_a_url_without_a_directory_of_this_host_is_refused(url: str) -> None:
    with pytest.raises(WrongFileUrl, match="broker_url"):
        root_of(url)


async def test_a_file_that_is_no_message_is_set_aside_with_the_reason_and_does_not_hold_up_others(
    tmp_path: Path,
) -> None:
    async with open_file_broker(tmp_path.as_uri()) as broker:
        await broker.declare(QUEUE)
        await broker.publish(message(b"torn", 5), message(b"good", 1))
        torn = min(folder(tmp_path, "incoming").iterdir())
        torn.write_bytes(torn.read_bytes()[:-1])

        async with broker.consume(QUEUE.name, prefetch=1) as consumer:
            (delivery,) = await consumer.receive()
            await consumer.ack(delivery)

    assert delivery.body == b"good"
    assert (folder(tmp_path, "failed") / torn.name).exists()
    reason = json.loads((folder(tmp_path, "failed") / f"{torn.name}.reason.json").read_text())
    assert reason == {"queue": QUEUE.name, "reason": "It has 3 bytes of body instead of 4."}


async def test_a_file_given_back_is_the_very_same_file(tmp_path: Path) -> None:
    async with open_file_broker(tmp_path.as_uri()) as broker:
        await broker.declare(QUEUE)
        await broker.publish(message())
        (before,) = folder(tmp_path, "incoming").iterdir()
        content, number = before.read_bytes(), before.stat().st_ino

        async with broker.consume(QUEUE.name, prefetch=1) as consumer:
            await consumer.requeue(*await consumer.receive())
            await consumer.cancel()
            (after,) = folder(tmp_path, "incoming").iterdir()

    assert (after.read_bytes(), after.stat().st_ino, after.suffix) == (content, number, ".again")


async def test_what_a_dead_process_held_is_put_back_and_logged_and_what_a_live_one_holds_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    dead, alive = FileStore(tmp_path), FileStore(tmp_path)
    async with open_file_broker(tmp_path.as_uri()) as broker:
        await broker.declare(QUEUE)
        await broker.publish(message(b"of the dead"), message(b"of the living"))
        assert [delivery.body for delivery in dead.take(QUEUE.name, 1)] == [b"of the dead"]
        assert [delivery.body for delivery in alive.take(QUEUE.name, 1)] == [b"of the living"]

    # Its handle is closed by the kernel and its lock file stays, as when a process is killed.
    dead.session.vanish()
    async with (
        open_file_broker(tmp_path.as_uri()) as broker,
        broker.consume(QUEUE.name, prefetch=2) as consumer,
    ):
        deliveries = await consumer.receive(2)
        await consumer.ack(*deliveries)
        assert [(delivery.body, delivery.redelivered) for delivery in deliveries] == [(b"of the dead", True)]
        assert await broker.depth(QUEUE.name) == 0
    alive.close()

    put_back = [record for record in caplog.records if record.message == "broker.put_back"]
    assert [record.held_by for record in put_back] == [dead.session.name, alive.session.name]  # type: ignore[attr-defined]
    assert len(list(folder(tmp_path, "incoming").iterdir())) == 1


async def test_files_are_found_by_polling_where_there_is_no_inotify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("asyncinotify.Inotify.__init__", refuse)
    async with open_file_broker(tmp_path.as_uri()) as receiving, open_file_broker(tmp_path.as_uri()) as sending:
        await receiving.declare(QUEUE)
        async with receiving.consume(QUEUE.name, prefetch=1) as consumer, asyncio.timeout(10):
            waiting = asyncio.create_task(consumer.receive())
            await asyncio.sleep(0)
            await sending.publish(message(b"found"))
            assert [delivery.body for delivery in await waiting] == [b"found"]
            await consumer.ack(*waiting.result())


async def test_another_process_is_heard_at_once_and_not_by_polling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.broker.filesystem.WATCHED_POLL", timedelta(hours=1))
    monkeypatch.setattr("common.broker.filesystem.LONGEST_POLL", timedelta(hours=1))
    async with open_file_broker(tmp_path.as_uri()) as receiving, open_file_broker(tmp_path.as_uri()) as sending:
        await receiving.declare(QUEUE)
        async with receiving.consume(QUEUE.name, prefetch=1) as consumer, asyncio.timeout(10):
            waiting = asyncio.create_task(consumer.receive())
            await eventually(lambda: receiving._watch._watched)
            await asyncio.sleep(0.05)
            await sending.publish(message(b"heard"))
            assert [delivery.body for delivery in await waiting] == [b"heard"]
            await consumer.ack(*waiting.result())


async def test_nothing_half_written_is_left_when_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_file_broker(tmp_path.as_uri()) as broker:
        await broker.declare(QUEUE)
        with monkeypatch.context() as full:
            full.setattr("common.broker.filesystem_store.pack", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
            with pytest.raises(Exception, match="could not publish"):
                await broker.publish(message())

        assert await broker.depth(QUEUE.name) == 0
        assert not list(tmp_path.glob("drafts/*/*"))
        await broker.publish(message())
        assert await broker.depth(QUEUE.name) == 1


async def test_what_a_crash_left_of_a_deleted_queue_goes_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / ".deleted-0"
    (left / "incoming").mkdir(parents=True)

    async with open_file_broker(tmp_path.as_uri()):
        assert not left.exists()
