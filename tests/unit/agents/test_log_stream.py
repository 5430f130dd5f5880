"""Output goes out while the work runs, in bounded memory."""

import asyncio
from collections.abc import Sequence

import pytest

from agents.output.log_stream import MAX_UNSENT_BYTES, LogStream
from agents.output.pace import Pace
from common.messages import OutputChunk, Stream
from common.redaction.values import Values
from tests.eventually import eventually


class Sent:
    """Takes chunks when `open` is set."""

    def __init__(self) -> None:
        self.calls: list[list[OutputChunk]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, chunks: Sequence[OutputChunk]) -> None:
        await self.open.wait()
        self.calls.append(list(chunks))

    @property
    def text(self) -> str:
        return "".join(chunk.text for call in self.calls for chunk in call)


async def test_the_first_output_goes_out_at_once() -> None:
    sent = Sent()
    async with LogStream(sent) as stream:
        await stream.write(Stream.STDOUT, b"first\n")

        await eventually(lambda: sent.text == "first\n", every=0.001, timeout=0.09)


async def test_output_that_follows_quickly_is_collected() -> None:
    sent = Sent()
    async with LogStream(sent) as stream:
        for number in range(50):
            await stream.write(Stream.STDOUT, b"%d," % number)
            await asyncio.sleep(0)
        await eventually(lambda: sent.text.endswith("49,"))

    assert len(sent.calls) <= 3


async def test_what_is_not_sent_when_the_work_ends_is_returned_for_the_result() -> None:
    sent = Sent()
    async with LogStream(sent) as stream:
        await stream.write(Stream.STDOUT, b"all of it")
        last = await stream.close()

    assert sent.calls == []
    assert [chunk.text for chunk in last] == ["all of it"]
    assert stream.tail == "all of it"
    assert stream.totals == {Stream.STDOUT: 9, Stream.STDERR: 0}


async def test_closing_waits_until_all_but_the_last_chunks_are_stored() -> None:
    sent = Sent()
    sent.open.clear()
    async with LogStream(sent) as stream:
        await stream.write(Stream.STDOUT, b"x" * 700_000)
        await asyncio.sleep(0)
        closing = asyncio.create_task(stream.close())
        await asyncio.sleep(0)
        assert not closing.done()

        sent.open.set()
        last = await closing

    numbers = [chunk.number for call in [*sent.calls, last] for chunk in call]
    assert numbers == list(range(len(numbers)))
    assert len(sent.text) + sum(len(chunk.text) for chunk in last) == 700_000


async def test_writing_waits_while_the_broker_takes_nothing() -> None:
    sent = Sent()
    sent.open.clear()
    async with LogStream(sent) as stream:
        written = 0

        async def write_for_ever() -> None:
            nonlocal written
            while True:
                await stream.write(Stream.STDOUT, b"x" * 65_536)
                written += 65_536

        writing = asyncio.create_task(write_for_ever())
        await eventually(lambda: written >= MAX_UNSENT_BYTES)
        held_at = written
        await asyncio.wait({writing}, timeout=0.05)
        assert written == held_at <= MAX_UNSENT_BYTES + 65_536

        sent.open.set()
        await eventually(lambda: written > held_at)
        writing.cancel()


async def test_a_writer_learns_that_its_output_cannot_be_sent() -> None:
    async def refuse(chunks: Sequence[OutputChunk]) -> None:
        raise RuntimeError("no")

    async with LogStream(refuse) as stream:
        with pytest.raises(RuntimeError):
            await stream.write(Stream.STDOUT, b"0" * (MAX_UNSENT_BYTES + 1))


async def test_the_beginning_of_a_secret_is_held_back_only_for_a_moment() -> None:
    sent = Sent()
    async with LogStream(sent, known=Values(["correct horse"])) as stream:
        await stream.write(Stream.STDOUT, b"it is correct")
        await eventually(lambda: sent.text == "it is ", timeout=0.2)

        await eventually(lambda: sent.text == "it is correct")


async def test_no_stream_tells_a_secret_in_chunks_or_tail() -> None:
    sent = Sent()
    async with LogStream(sent, known=Values(["correct horse"])) as stream:
        stream.hide("battery staple")
        await stream.write(Stream.STDOUT, b"it is correct ho")
        await stream.write(Stream.STDERR, b"battery st")
        await stream.write(Stream.STDOUT, b"rse\n")
        await stream.write(Stream.STDERR, b"aple")
        await stream.close()

    assert stream.tail == "it is [redacted]\n[redacted]"
    assert stream.redacted("no correct horse") == "no [redacted]"


@pytest.mark.parametrize(("seconds", "is_slowed"), [(1, False), (2, True)])
def test_a_second_of_output_is_taken_at_once_and_what_exceeds_it_waits_its_time(seconds: int, is_slowed: bool) -> None:
    pace = Pace(1000)

    pauses = [pace.take(1000, now=5.0) for _ in range(seconds)]

    assert pauses == ([0.0, 1.0] if is_slowed else [0.0])
    assert pace.take(1, now=5.0) == pytest.approx(seconds - 1 + 0.001)
    assert pace.take(500, now=100.0) == 0.0


async def test_a_program_that_writes_too_fast_is_slowed_down_and_loses_nothing() -> None:
    sent, loop = Sent(), asyncio.get_running_loop()
    async with LogStream(sent, per_second=1_000_000) as stream:
        await stream.write(Stream.STDOUT, b"a" * 1_000_000)
        began = loop.time()
        await stream.write(Stream.STDERR, b"b" * 200_000)
        last = await stream.close()

    assert loop.time() - began >= 0.19
    assert len(sent.text) + sum(len(chunk.text) for chunk in last) == 1_200_000
