"""A result is sent again until it is stored, from disk or, when that is full, from memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from agents.handover import Handover
from agents.reporter import Reporter
from agents.spool import Spool
from agents.spool_lines import WrittenResult
from common.broker.base import Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES
from common.clock import SystemClock
from common.loop import Health
from common.messages import Lease
from common.protocol import WorkResultEnvelope, decode
from tests.eventually import eventually
from tests.unit.agents.test_spool import AGENT, make_result


class Recording(MemoryBroker):
    def __init__(self) -> None:
        super().__init__()
        self.results: list[WorkResultEnvelope] = []

    async def publish(self, *messages: Outgoing) -> None:
        await super().publish(*messages)
        for message in messages:
            envelope = decode(message.body)
            assert isinstance(envelope, WorkResultEnvelope)
            self.results.append(envelope)


class Owing:
    def __init__(self, broker: Recording, handover: Handover, spool: Spool) -> None:
        self.broker = broker
        self.handover = handover
        self.spool = spool

    async def hand_over(self, result: WorkResultEnvelope) -> None:
        await self.handover.keep(WrittenResult.of(result))
        await self.handover.send(WrittenResult.of(result))

    def store(self, result: WorkResultEnvelope) -> None:
        self.handover.stored([Lease(task_id=result.payload.task_id, fence=result.payload.fence)])


Open = Callable[..., AbstractAsyncContextManager[Owing]]


@pytest.fixture
def owing(tmp_path: Path) -> Open:
    @asynccontextmanager
    async def opened(*, resend_after: float = 60.0, left: bool = False) -> AsyncIterator[Owing]:
        broker, spool = Recording(), Spool(tmp_path / "spool")
        await broker.declare(*REPLY_QUEUES)
        keys = spool.open()
        async with (
            Reporter(broker, AGENT) as reporter,
            Handover(
                spool, reporter, SystemClock(), resend_after=timedelta(seconds=resend_after), health=Health()
            ) as handover,
        ):
            if left:
                await handover.send_left(keys)
            running = asyncio.create_task(handover.run())
            yield Owing(broker, handover, spool)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return opened


async def test_a_result_is_forgotten_only_when_it_is_stored(owing: Open, tmp_path: Path) -> None:
    result = make_result()
    async with owing() as it:
        await it.hand_over(result)
        assert len(it.handover) == 1
        assert Spool(tmp_path / "spool").open() == [WrittenResult.of(result).key]

        it.store(result)

        assert len(it.handover) == 0
        await eventually(lambda: Spool(tmp_path / "spool").open() == [])


async def test_another_fence_stores_nothing(owing: Open) -> None:
    result = make_result(fence=3)
    async with owing() as it:
        await it.hand_over(result)

        it.handover.stored([Lease(task_id=result.payload.task_id, fence=4)])

        assert len(it.handover) == 1


async def test_what_nobody_stores_is_sent_again_ever_more_rarely_and_no_more_once_it_is_stored(owing: Open) -> None:
    result = make_result()
    loop = asyncio.get_running_loop()
    async with owing(resend_after=0.1) as it:
        await it.hand_over(result)
        times = [loop.time()]
        while len(times) < 4:
            seen = len(it.broker.results)
            await eventually(lambda: len(it.broker.results) > seen, every=0.005)  # noqa: B023 - awaited at once
            times.append(loop.time())
        it.store(result)

        assert len(it.handover) == 0
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert pauses[0] < pauses[1] < pauses[2]
        assert all(sent == result for sent in it.broker.results)


async def test_what_an_earlier_life_left_is_sent_first(owing: Open) -> None:
    first, second = make_result(), make_result()
    async with owing() as it:
        await it.handover.keep(WrittenResult.of(first))
        await it.handover.keep(WrittenResult.of(second))
        assert it.broker.results == []

    async with owing(left=True) as it:
        assert sorted(sent.payload.task_id for sent in it.broker.results) == sorted(
            (first.payload.task_id, second.payload.task_id)
        )
        assert len(it.handover) == 2


async def test_a_full_disk_costs_a_log_line_and_not_the_result(
    owing: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with owing(resend_after=0.05) as it:
        (tmp_path / "spool").rmdir()
        (tmp_path / "spool").write_text("in the way")
        result = make_result()

        await it.hand_over(result)
        await eventually(lambda: len(it.broker.results) >= 2)
        it.store(result)

        assert "spool.failed" in caplog.text
        assert it.broker.results[0] == it.broker.results[1] == result
        assert len(it.handover) == 0


async def test_results_that_end_together_share_the_disk(owing: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with owing() as it:
        calls: list[int] = []
        keep = it.spool.keep

        def counting(results: list[WrittenResult]) -> object:
            calls.append(len(results))
            return keep(results)

        monkeypatch.setattr(it.spool, "keep", counting)

        await asyncio.gather(*(it.handover.keep(WrittenResult.of(make_result())) for _ in range(50)))

        assert calls == [50]


async def test_leaving_waits_for_the_last_results_and_not_for_ever(owing: Open) -> None:
    result = make_result()
    async with owing() as it:
        await it.hand_over(result)

        assert not await it.handover.settled(within=0.05)
        asyncio.get_running_loop().call_later(0.05, it.store, result)
        assert await it.handover.settled(within=10)
