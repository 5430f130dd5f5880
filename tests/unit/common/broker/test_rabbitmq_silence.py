"""When a connection to RabbitMQ that nobody has closed is given up, and when it is not."""

import asyncio
from datetime import timedelta
from typing import cast

import pytest
from pamqp.commands import Basic, Connection
from pamqp.frame import marshal

from common.broker import rabbitmq_connection
from common.broker.base import BrokerUnavailable
from common.broker.rabbitmq_connection import Generation, Link
from common.broker.rabbitmq_publisher import Publisher, PublishingChannel
from common.broker.rabbitmq_wire import Wire, WiredConnection
from common.broker.topology import WORK
from tests.eventually import eventually
from tests.unit.common.broker.test_rabbitmq_wire import TAPPED, Connected, confirming, message

pytestmark = pytest.mark.path_internals

DEADLINE = timedelta(seconds=0.3)
LOOK = timedelta(seconds=0.01)
NO_HEARTBEATS = timedelta()


class Established:
    """A connection of the library without a network."""

    def __init__(self, wire: Wire, heartbeat: timedelta) -> None:
        self.wire = wire
        self.heartbeat = heartbeat
        self.close_callbacks: set[object] = set()


class Opened:
    """A generation whose channel confirms what the test says; it is also the link that has it."""

    def __init__(self) -> None:
        self.connected = Connected()
        self.losses: list[str | None] = []
        self.kept: Generation[PublishingChannel] = generation_of(self.connected.wire, NO_HEARTBEATS, self.losses)
        channel = confirming(self.connected)
        self.kept.prepared = PublishingChannel(channel, {WORK.name})
        self.kept.when_lost(lambda: channel.fail("lost"))
        self.publisher = Publisher(cast("Link[PublishingChannel]", self), user=None, deadline=DEADLINE)

    async def generation(self) -> Generation[PublishingChannel]:
        return self.kept

    async def publish_in_vain(self) -> None:
        """Publish for a caller that waits for less than the deadline."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(DEADLINE.total_seconds() / 3):
                await self.publisher.publish([message("a")])


def generation_of(wire: Wire, heartbeat: timedelta, losses: list[str | None]) -> Generation[PublishingChannel]:
    connection = cast("WiredConnection", Established(wire, heartbeat))
    return Generation(connection, deadline=DEADLINE, on_lost=losses.append)


@pytest.fixture
async def opened() -> Opened:
    return Opened()


async def test_a_publish_that_is_not_confirmed_by_the_deadline_gives_the_connection_up(opened: Opened) -> None:
    with pytest.raises(BrokerUnavailable):
        await opened.publisher.publish([message("a")])

    assert len(opened.losses) == 1
    assert opened.connected.transport.is_closing()


async def test_a_publish_whose_caller_was_gone_before_the_deadline_gives_the_connection_up_at_the_deadline(
    opened: Opened,
) -> None:
    await opened.publish_in_vain()

    assert not opened.losses
    await eventually(lambda: opened.losses)
    assert opened.connected.transport.is_closing()


@pytest.mark.parametrize("frame", [marshal(Basic.Ack(1), TAPPED), marshal(Connection.Blocked("memory"), 0)])
async def test_a_confirm_after_the_caller_has_gone_and_an_alarm_keep_the_connection(
    opened: Opened, frame: bytes
) -> None:
    await opened.publish_in_vain()
    opened.connected.receive(frame)

    over = asyncio.Event()
    asyncio.get_running_loop().call_later(DEADLINE.total_seconds(), over.set)
    await over.wait()

    assert not opened.losses


class Heard:
    """A wire on which something was read between looks, each time that `every` looks were made; 0: never."""

    def __init__(self, every: int) -> None:
        self._every = every
        self.looks = 0
        self.is_aborted = False

    @property
    def was_heard(self) -> bool:
        self.looks += 1
        return bool(self._every) and self.looks % self._every == 0

    @was_heard.setter
    def was_heard(self, value: bool) -> None:
        assert not value

    def abort(self) -> None:
        self.is_aborted = True


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Link[PublishingChannel]:
    monkeypatch.setattr(rabbitmq_connection, "LOOK", LOOK)

    async def prepare(_: object) -> PublishingChannel:
        raise AssertionError("nothing is opened")

    return Link("amqp://guest@127.0.0.1/", name="test", deadline=DEADLINE, prepare=prepare)


async def test_a_connection_is_given_up_after_two_heartbeats_of_silence(link: Link[PublishingChannel]) -> None:
    wire, losses = Heard(every=0), list[str | None]()

    await link._until_lost(generation_of(cast("Wire", wire), 2 * LOOK, losses))

    assert wire.looks == 4
    assert wire.is_aborted
    assert losses == ["RabbitMQ was not heard for 0.04 s"]


@pytest.mark.parametrize(("heartbeat", "every"), [(2 * LOOK, 4), (NO_HEARTBEATS, 0)])
async def test_a_connection_lives_while_something_is_heard_and_where_no_heartbeats_were_agreed_upon(
    link: Link[PublishingChannel], heartbeat: timedelta, every: int
) -> None:
    wire, losses = Heard(every), list[str | None]()
    watching = asyncio.create_task(link._until_lost(generation_of(cast("Wire", wire), heartbeat, losses)))

    await eventually(lambda: wire.looks > 20)

    assert not losses
    watching.cancel()
    await asyncio.wait({watching})
