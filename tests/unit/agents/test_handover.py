"""A result is sent again until it is stored, from disk or, when that is full, from memory."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from agents.disk.spool import Spool
from agents.disk.spool_lines import Key, WrittenResult
from agents.link.reporter import Reporter
from agents.tasks import handover as handing_over
from agents.tasks.handover import Handover
from common.broker.base import Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES
from common.clock import SystemClock
from common.loop import Health
from common.messages import Lease
from common.protocol import WorkResultEnvelope, WorkResultsEnvelope, decode
from tests.eventually import eventually
from tests.factories import make_credit
from tests.spooled import spooled
from tests.unit.agents.test_spool import AGENT, make_result


class Recording(MemoryBroker):
    def __init__(self) -> None:
        super().__init__()
        self.results: list[WorkResultEnvelope] = []
        self.messages: list[list[WorkResultEnvelope]] = []

    async def publish(self, *messages: Outgoing) -> None:
        await super().publish(*messages)
        for message in messages:
            envelope = decode(message.body)
            assert isinstance(envelope, WorkResultsEnvelope)
            self.results += envelope.payload.results
            self.messages.append(envelope.payload.results)


class Owing:
    def __init__(self, broker: Recording, handover: Handover, spool: Spool) -> None:
        self.broker = broker
        self.handover = handover
        self.spool = spool

    async def hand_over(self, result: WorkResultEnvelope) -> None:
        await self.handover.keep(WrittenResult.of(result))
        await self.handover.send(WrittenResult.of(result))

    def begin(self, result: WorkResultEnvelope) -> asyncio.Task[None]:
        """Keep and send at the same time."""
        return asyncio.create_task(self.handover.hand_over(WrittenResult.of(result)))

    def store(self, result: WorkResultEnvelope) -> None:
        self.handover.stored([Lease(task_id=result.payload.task_id, attempt=result.payload.attempt)])


Open = Callable[..., AbstractAsyncContextManager[Owing]]


@pytest.fixture
def owing(tmp_path: Path) -> Open:
    @asynccontextmanager
    async def opened(*, resend_after: float = 60.0, left: bool = False) -> AsyncIterator[Owing]:
        broker, spool = Recording(), Spool(tmp_path / "spool")
        await broker.declare(*REPLY_QUEUES)
        keys = spool.open()
        async with (
            Reporter(broker, AGENT, make_credit) as reporter,
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


async def test_that_another_attempt_is_stored_says_nothing_of_this_one(owing: Open) -> None:
    result = make_result(attempt=3)
    async with owing() as it:
        await it.hand_over(result)

        it.handover.stored([Lease(task_id=result.payload.task_id, attempt=4)])

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


class SlowDisk:
    """A spool whose writes wait until they may go on."""

    def __init__(self, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_writing, self.go_on = threading.Event(), threading.Event()
        self.writes = 0
        keep = spool.keep

        def slowly(results: list[WrittenResult]) -> object:
            self.writes += 1
            self.is_writing.set()
            assert self.go_on.wait(10)
            return keep(results)

        monkeypatch.setattr(spool, "keep", slowly)


async def test_a_result_is_sent_while_the_disk_is_busy_and_handed_over_when_both_have_it(
    owing: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = make_result()
    async with owing() as it:
        disk = SlowDisk(it.spool, monkeypatch)

        handing = it.begin(result)
        await eventually(lambda: it.broker.results == [result] and disk.is_writing.is_set())
        assert spooled(tmp_path) == []
        assert not handing.done()
        disk.go_on.set()
        await asyncio.wait_for(handing, 10)

        assert spooled(tmp_path) == [WrittenResult.of(result).key]


async def test_a_result_is_on_disk_while_the_broker_is_away_and_handed_over_when_it_is_back(
    owing: Open, tmp_path: Path
) -> None:
    result = make_result()
    async with owing() as it:
        publish, back = it.broker.publish, asyncio.Event()

        async def later(*messages: Outgoing) -> None:
            await back.wait()
            await publish(*messages)

        it.broker.publish = later  # type: ignore[method-assign]
        kept = asyncio.Event()
        handing = asyncio.create_task(it.handover.hand_over(WrittenResult.of(result), kept=kept.set))
        await asyncio.wait_for(kept.wait(), 10)

        assert spooled(tmp_path) == [WrittenResult.of(result).key]
        assert not handing.done()
        back.set()
        await asyncio.wait_for(handing, 10)


async def test_a_result_that_is_stored_before_the_disk_has_it_is_owed_no_more_and_leaves_nothing_there(
    owing: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, other = make_result(), make_result()
    async with owing(resend_after=0.05) as it:
        disk = SlowDisk(it.spool, monkeypatch)
        handing = it.begin(result)
        await eventually(lambda: it.broker.results and disk.is_writing.is_set())

        it.store(result)
        disk.go_on.set()
        await asyncio.wait_for(handing, 10)

        assert len(it.handover) == 0
        assert await it.handover.settled(within=5)
        await eventually(lambda: spooled(tmp_path) == [])
        # Another one is sent again meanwhile, this one is not.
        await asyncio.wait_for(it.begin(other), 10)
        await eventually(lambda: it.broker.results.count(other) > 1)
        assert it.broker.results.count(result) == 1


async def test_a_result_that_is_stored_before_its_turn_at_the_disk_is_not_written(
    owing: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_result(), make_result()
    async with owing() as it:
        disk = SlowDisk(it.spool, monkeypatch)
        handing = [it.begin(first)]
        await eventually(disk.is_writing.is_set)
        handing.append(it.begin(second))
        await eventually(lambda: second in it.broker.results)

        it.store(second)
        disk.go_on.set()
        await asyncio.wait_for(asyncio.gather(*handing), 10)

        assert disk.writes == 1
        assert spooled(tmp_path) == [WrittenResult.of(first).key]
        assert len(it.handover) == 1


async def test_a_disk_that_fails_while_the_result_is_sent_leaves_it_in_memory_until_it_is_stored(
    owing: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = make_result()
    async with owing(resend_after=0.05) as it:
        (tmp_path / "spool").rmdir()
        (tmp_path / "spool").write_text("in the way")

        await asyncio.wait_for(it.begin(result), 10)
        await eventually(lambda: it.broker.results.count(result) > 1)
        it.store(result)

        assert "spool.failed" in caplog.text
        assert len(it.handover) == 0


async def test_a_result_is_brought_to_disk_although_its_slot_is_given_up(
    owing: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_result(), make_result()
    async with owing() as it:
        disk = SlowDisk(it.spool, monkeypatch)
        handing = [it.begin(first)]
        await eventually(disk.is_writing.is_set)
        handing.append(it.begin(second))
        await eventually(lambda: second in it.broker.results)

        for one in handing:
            one.cancel()
        await asyncio.gather(*handing, return_exceptions=True)
        disk.go_on.set()

    assert spooled(tmp_path) == [WrittenResult.of(first).key, WrittenResult.of(second).key]


async def test_the_disk_is_told_of_many_results_at_once_that_they_are_stored(
    owing: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [make_result() for _ in range(20)]
    async with owing() as it:
        forgotten: list[int] = []
        forget = it.spool.forget

        def counting(keys: list[Key]) -> None:
            forgotten.append(len(keys))
            forget(keys)

        monkeypatch.setattr(it.spool, "forget", counting)
        for result in results:
            await it.hand_over(result)
            it.store(result)
        await eventually(lambda: spooled(tmp_path) == [])

    assert sum(forgotten) == 20
    assert len(forgotten) < 20


async def test_what_is_stored_is_gone_from_the_disk_when_the_agent_leaves_at_once(
    owing: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handing_over, "FORGET_AFTER", timedelta(minutes=1))
    result = make_result()
    async with owing() as it:
        await it.hand_over(result)
        it.store(result)
        assert spooled(tmp_path) == [WrittenResult.of(result).key]

    assert spooled(tmp_path) == []


async def test_a_result_that_is_owed_anew_is_not_forgotten_with_the_one_that_was_stored(
    owing: Open, tmp_path: Path
) -> None:
    result = make_result()
    async with owing() as it:
        await it.hand_over(result)
        it.store(result)
        await it.hand_over(result)

    assert spooled(tmp_path) == [WrittenResult.of(result).key]


async def test_a_result_that_is_sent_again_travels_alone_and_new_ones_together(
    owing: Open, caplog: pytest.LogCaptureFixture
) -> None:
    again, *new = [make_result() for _ in range(4)]
    async with owing(resend_after=0.2) as it:
        await it.hand_over(again)
        publish, back = it.broker.publish, asyncio.Event()

        async def later(*messages: Outgoing) -> None:
            await back.wait()
            await publish(*messages)

        it.broker.publish = later  # type: ignore[method-assign]
        handing = [it.begin(new[0])]  # the broker is busy with this one
        await eventually(lambda: "result.sent_again" in caplog.text)
        handing += [it.begin(result) for result in new[1:]]
        await eventually(lambda: len(it.handover) == 4)
        back.set()
        await asyncio.wait_for(asyncio.gather(*handing), 10)

        assert new[1:] in it.broker.messages
        assert it.broker.messages.count([again]) >= 2
        assert not any(again in results and len(results) > 1 for results in it.broker.messages)


async def test_a_result_does_not_count_as_kept_before_the_disk_has_it(
    owing: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, kept = make_result(), asyncio.Event()
    async with owing() as it:
        disk = SlowDisk(it.spool, monkeypatch)
        handing = asyncio.create_task(it.handover.hand_over(WrittenResult.of(result), kept=kept.set))
        await eventually(disk.is_writing.is_set)
        was_kept = kept.is_set()
        disk.go_on.set()
        await asyncio.wait_for(handing, 10)

    assert (was_kept, kept.is_set()) == (False, True)


async def test_of_results_that_the_disk_refuses_only_so_many_are_held_in_memory_and_the_oldest_go(
    owing: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handing_over, "MAX_IN_MEMORY", 2)
    results = [WrittenResult.of(make_result()) for _ in range(4)]
    async with owing() as it:
        (tmp_path / "spool").rmdir()
        (tmp_path / "spool").write_text("in the way")

        for result in results:
            await it.handover.keep(result)

        assert [it.handover.owes(result.key) for result in results] == [False, False, True, True]
    assert caplog.text.count("result.dropped") == 2
