"""Metrics on their way: what a datagram says, and what an error costs."""

import logging
import socket
from collections.abc import Iterator
from datetime import timedelta

import pytest

from orchestrator.metrics.statsd import Counted, StatsD, Timed, segment
from tests.fakes.clock import FakeClock

HERE = "127.0.0.1"


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind((HERE, 0))
        opened.settimeout(5)
        yield opened


def port_of(receiver: socket.socket) -> int:
    port: int = receiver.getsockname()[1]
    return port


def statsd(port: int, *, host: str = HERE, prefix: str = "chiffon.orchestrator", clock: FakeClock) -> StatsD:
    return StatsD(host, port, prefix=prefix, clock=clock)


@pytest.mark.parametrize(
    ("metric", "line"),
    [
        (Counted("runs.queued"), b"chiffon.orchestrator.runs.queued:1|c"),
        (
            Timed("steps.build.duration", timedelta(seconds=1.5)),
            b"chiffon.orchestrator.steps.build.duration:1500.0000|ms",
        ),
        (Timed("a", timedelta(microseconds=12)), b"chiffon.orchestrator.a:0.0120|ms"),
        (Timed("a", timedelta(days=-1)), b"chiffon.orchestrator.a:0.0000|ms"),
    ],
)
async def test_each_metric_is_a_datagram_of_its_own(
    receiver: socket.socket, metric: Counted | Timed, line: bytes
) -> None:
    with statsd(port_of(receiver), clock=FakeClock()) as sender:
        await sender.open()
        sender.send(metric, metric)

    assert [receiver.recv(1000), receiver.recv(1000)] == [line, line]


@pytest.mark.parametrize(("prefix", "line"), [("", b"x:1|c"), ("a.b", b"a.b.x:1|c"), ("a.b.", b"a.b.x:1|c")])
async def test_the_prefix_stands_before_a_name(receiver: socket.socket, prefix: str, line: bytes) -> None:
    with statsd(port_of(receiver), prefix=prefix, clock=FakeClock()) as sender:
        await sender.open()
        sender.send(Counted("x"))

    assert receiver.recv(1000) == line


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("my service", "my_service"),
        ("a/b", "a-b"),
        ("api.v1", "api.v1"),
        ("a:1|c\n@#", "a_1_c___"),
        ("é", "_"),
        ("", "_"),
    ],
)
def test_a_text_becomes_a_part_of_a_name(text: str, part: str) -> None:
    assert segment(text) == part


async def test_before_it_is_open_and_after_it_is_closed_nothing_is_sent(receiver: socket.socket) -> None:
    with statsd(port_of(receiver), clock=FakeClock()) as sender:
        sender.send(Counted("early"))
        await sender.open()
        sender.send(Counted("open"))
    sender.send(Counted("late"))

    assert receiver.recv(1000).endswith(b".open:1|c")
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv(1000)


async def test_a_closed_port_costs_nothing(receiver: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    port = port_of(receiver)
    receiver.close()

    with statsd(port, clock=FakeClock()) as sender:
        await sender.open()
        for _ in range(100):
            sender.send(Counted("x"))

        assert sender.is_open
    assert not caplog.records


async def test_after_an_error_nothing_is_tried_for_a_while_and_longer_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    pauses = []
    with statsd(8125, host="no such host", clock=clock) as sender, caplog.at_level(logging.WARNING):
        for _ in range(6):
            await sender.open()
            pause = caplog.records[-1].__dict__["again_in_seconds"]
            pauses.append(pause)
            clock.advance(seconds=pause - 0.1)
            await sender.open()
            clock.advance(seconds=0.2)

        assert not sender.is_open
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert len(caplog.records) == 6
    assert {record.message for record in caplog.records} == {"metrics.not_sent"}


async def test_a_datagram_that_cannot_be_sent_is_an_error_and_a_success_ends_the_row(
    receiver: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    too_long = Counted("x" * 70_000)
    with statsd(port_of(receiver), clock=clock) as sender, caplog.at_level(logging.WARNING):
        pauses = []
        for metric in (too_long, too_long, Counted("fine"), too_long):
            await sender.open()
            sender.send(metric)
            if not sender.is_open:
                pauses.append(caplog.records[-1].__dict__["again_in_seconds"])
                clock.advance(seconds=pauses[-1])

    assert pauses == [5, 10, 5]
    assert receiver.recv(1000).endswith(b".fine:1|c")
