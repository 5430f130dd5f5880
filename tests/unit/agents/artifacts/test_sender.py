"""A file that is kept is sent in pieces, again and again, until the orchestrator has stored or refused it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from agents.artifacts import sender as sender_
from agents.artifacts.sender import MOST_ATTEMPTS, MOST_UNDER_WAY, ArtifactSender
from agents.artifacts.spool import Artifact, ArtifactSpool
from agents.link.reporter import Reporter
from common.artifacts import MAX_PIECE_BYTES
from common.broker.base import BrokerUnavailable, Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES
from common.clock import SystemClock
from common.loop import Health
from common.messages import ArtifactPiece, WorkStatus
from common.orders import ArtifactsStored
from common.protocol import decode
from tests.eventually import eventually
from tests.factories import make_credit
from tests.unit.agents.artifacts.making import AGENT, keep, make_owner, make_spool, owed

LARGE = bytes(range(256)) * (MAX_PIECE_BYTES * 7 // 2 // 256)


class Recording(MemoryBroker):
    """Notes every piece that reaches it. While `is_away` it takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[WorkStatus] = []
        self.pieces: list[ArtifactPiece] = []
        self.is_away = False
        self.refused: set[tuple[str, int]] = set()

    async def publish(self, *messages: Outgoing) -> None:
        payloads = [decode(message.body).payload for message in messages]
        statuses = [payload for payload in payloads if isinstance(payload, WorkStatus)]
        if self.is_away:
            self.refused |= {(piece.name, piece.offset) for status in statuses for piece in status.pieces}
            raise BrokerUnavailable("away")
        self.statuses += statuses
        self.pieces += [piece for status in statuses for piece in status.pieces]

    def content_of(self, name: str) -> bytes:
        """Return what came of a file the first time, put together."""
        first = {piece.offset: piece.raw for piece in reversed(self.pieces) if piece.name == name}
        return b"".join(first[offset] for offset in sorted(first))

    def times(self, name: str) -> int:
        """Return how often a file came as a whole."""
        return min(Counter(piece.offset for piece in self.pieces if piece.name == name).values(), default=0)


class Sending:
    def __init__(self, folder: Path, broker: Recording, sender: ArtifactSender, spool: ArtifactSpool) -> None:
        self._folder = folder
        self.broker = broker
        self.sender = sender
        self.spool = spool

    def keep(self, content: bytes, name: str = "out.txt", *, task: int = 1) -> Artifact:
        artifact = keep(self.spool, content, self._folder, name=name, owner=make_owner(task))
        self.sender.owe([artifact])
        return artifact

    async def sent(self, artifact: Artifact) -> None:
        await self.sender.sent(artifact.task_id, artifact.attempt)

    def store(self, *artifacts: Artifact, attempt: int = 1) -> None:
        self.sender.stored(
            ArtifactsStored(
                task_id=artifacts[0].task_id, attempt=attempt, names=[artifact.name for artifact in artifacts]
            )
        )


Open = Callable[..., AbstractAsyncContextManager[Sending]]


@pytest.fixture
def sending(tmp_path: Path) -> Open:
    @asynccontextmanager
    async def opened(*, resend_after: float = 60.0) -> AsyncIterator[Sending]:
        broker, spool = Recording(), make_spool(tmp_path)
        await broker.declare(*REPLY_QUEUES)
        async with (
            Reporter(broker, AGENT, make_credit) as reporter,
            ArtifactSender(
                spool,
                reporter,
                AGENT,
                SystemClock(),
                resend_after=timedelta(seconds=resend_after),
                health=Health(),
            ) as sender,
        ):
            running = asyncio.create_task(sender.run())
            yield Sending(tmp_path, broker, sender, spool)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        spool.close()

    return opened


@pytest.mark.parametrize("content", [b"", b"small", LARGE, LARGE[: 2 * MAX_PIECE_BYTES]], ids=len)
async def test_a_file_is_sent_whole_in_pieces_that_say_what_it_is(sending: Open, content: bytes) -> None:
    async with sending() as it:
        artifact = it.keep(content, "dist/out.bin", task=3)

        await it.sent(artifact)

        assert it.broker.content_of("dist/out.bin") == content
        offsets = [piece.offset for piece in it.broker.pieces]
        assert offsets == list(range(0, max(len(content), 1), MAX_PIECE_BYTES))
        assert {(piece.type, piece.sha256, piece.size) for piece in it.broker.pieces} == {
            ("file", artifact.sha256, len(content))
        }
        assert {(status.task_id, status.attempt, status.agent_id) for status in it.broker.statuses} == {
            (artifact.task_id, 1, AGENT)
        }


async def test_a_file_is_forgotten_only_when_it_is_stored(sending: Open, tmp_path: Path) -> None:
    async with sending() as it:
        first, second = it.keep(b"1", "a"), it.keep(b"2", "b")
        await it.sent(first)
        assert len(it.sender) == 2

        it.store(first)

        assert len(it.sender) == 1
        await eventually(lambda: list((tmp_path / "artifacts").glob(first.sha256)) == [])
        it.store(second)
        assert await it.sender.settled(within=1)
    assert owed(tmp_path) == []


async def test_that_it_is_stored_may_be_said_again_and_of_others(sending: Open) -> None:
    async with sending() as it:
        artifact, _ = it.keep(b"1", "a", task=1), it.keep(b"2", "a", task=2)
        await it.sent(artifact)

        it.store(artifact, attempt=2)
        assert len(it.sender) == 2
        it.store(artifact)
        it.store(artifact)
        it.sender.stored(ArtifactsStored(task_id=artifact.task_id, attempt=1, names=["never kept"]))

        assert len(it.sender) == 1


async def test_what_nobody_stores_is_sent_again_ever_more_rarely_and_no_more_once_it_is_stored(sending: Open) -> None:
    loop = asyncio.get_running_loop()
    async with sending(resend_after=0.1) as it:
        artifact = it.keep(LARGE)
        await it.sent(artifact)
        times = [loop.time()]
        while len(times) < 4:
            seen = len(it.broker.pieces)
            await eventually(lambda: len(it.broker.pieces) >= seen + 4, every=0.005)  # noqa: B023 - awaited at once
            times.append(loop.time())
        it.store(artifact)

        assert await it.sender.settled(within=1)
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert pauses[0] < pauses[1] < pauses[2]
        assert it.broker.times("out.txt") == 4


async def test_a_refused_file_is_forgotten_and_the_reason_is_logged(
    sending: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with sending(resend_after=0.05) as it:
        refused, kept = it.keep(b"1", "refused"), it.keep(b"2", "kept")
        await it.sent(refused)

        it.sender.stored(
            ArtifactsStored(task_id=refused.task_id, attempt=1, names=["kept"], refused={"refused": "Too large."})
        )

        assert await it.sender.settled(within=1)
        [record] = [record for record in caplog.records if record.message == "artifact.refused"]
        assert (record.artifact, record.reason) == ("refused", "Too large.")  # type: ignore[attr-defined]
        assert kept.sha256 != refused.sha256
    assert owed(tmp_path) == []


async def test_what_an_earlier_life_kept_is_sent_by_the_next(sending: Open, tmp_path: Path) -> None:
    async with sending() as it:
        it.broker.is_away = True
        artifact = it.keep(LARGE)
        await eventually(lambda: it.broker.refused)

    async with sending() as it:
        it.sender.owe(owed(tmp_path))
        await it.sent(artifact)

        assert it.broker.content_of("out.txt") == LARGE
        it.store(artifact)
    assert owed(tmp_path) == []


async def test_while_the_broker_is_away_only_a_few_pieces_are_in_memory(
    sending: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = MOST_ATTEMPTS * MOST_UNDER_WAY
    pieces: list[int] = []
    read = ArtifactSpool.read

    def reading(spool: ArtifactSpool, artifact: Artifact, offset: int, size: int) -> bytes:
        pieces.append(offset)
        return read(spool, artifact, offset, size)

    monkeypatch.setattr(ArtifactSpool, "read", reading)
    async with sending() as it:
        it.broker.is_away = True
        artifacts = [it.keep(LARGE * 3 + bytes([task]), f"{task}", task=task) for task in range(1, 3 * MOST_ATTEMPTS)]
        await eventually(lambda: len(pieces) == most)
        for _ in range(3):
            await asyncio.sleep(0.02)

        assert len(pieces) == most
        it.broker.is_away = False
        for artifact in artifacts:
            await it.sent(artifact)
        assert all(it.broker.times(artifact.name) == 1 for artifact in artifacts)


async def test_a_large_file_of_one_attempt_does_not_hold_up_another(sending: Open) -> None:
    async with sending() as it:
        large, small = it.keep(LARGE * 4, "large", task=1), it.keep(b"small", "small", task=2)

        await it.sent(small)

        assert not it.sender.has_sent(large.task_id, 1)
        await it.sent(large)


async def test_a_file_that_is_kept_while_others_go_is_sent_behind_them(sending: Open) -> None:
    async with sending() as it:
        first = it.keep(LARGE, "first")
        await eventually(lambda: it.broker.pieces)
        it.keep(b"second", "second")

        await it.sent(first)

        assert [piece.name for piece in it.broker.pieces] == ["first"] * 4 + ["second"]


@pytest.mark.parametrize("count", [1, 20])
async def test_files_that_are_kept_one_by_one_are_all_sent_at_once(sending: Open, count: int) -> None:
    async with sending() as it:
        for number in range(count):
            artifact = it.keep(b"x", f"{number}")
            await it.sent(artifact)
            # A sender has just ended.
            for _ in range(number % 4):
                await asyncio.sleep(0)

        assert [piece.name for piece in it.broker.pieces] == [f"{number}" for number in range(count)]


async def test_one_that_is_stored_meanwhile_is_not_sent_to_its_end(
    sending: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_, "MOST_UNDER_WAY", 1)
    async with sending() as it:
        artifact = it.keep(LARGE * 4)
        await eventually(lambda: it.broker.pieces, every=0.001)

        it.store(artifact)
        await it.sent(artifact)

        assert len(it.broker.pieces) < 14


async def test_a_file_that_the_disk_lost_holds_up_nothing(
    sending: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with sending() as it:
        before, lost, _ = (it.keep(name.encode(), name) for name in ("before", "lost", "after"))
        (tmp_path / "artifacts" / lost.sha256).unlink()

        await it.sent(before)

        assert {piece.name for piece in it.broker.pieces} == {"before", "after"}
        assert "artifact.lost" in caplog.messages
        assert len(it.sender) == 2
