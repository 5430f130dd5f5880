"""What waits for one reader of events is bounded; nobody waits for a reader, and events are made once for all."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.events.model import Event
from orchestrator.live import frame, subscription
from orchestrator.live import hub as hub_module
from orchestrator.live.frame import Frame, Page
from orchestrator.live.hub import AT_ONCE, Hub
from orchestrator.live.outlet import ThroughAsgi
from orchestrator.live.subscription import Filter, Subscription


class Shown:
    """A reader's outlet that remembers; it takes nothing while `is_ready` is false."""

    def __init__(self) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self.is_ready = True
        self.pages: list[Page] = []
        self.said: list[str] = []

    @property
    def numbers(self) -> list[int]:
        return [one.seq for page in self.pages for one in page.frames]

    def show(self, page: Page) -> None:
        assert self.is_ready
        self.pages.append(page)

    def say(self, text: str) -> None:
        self.said.append(text)

    def take_again(self) -> None:
        self.is_ready = True
        self.on_ready()


def event(
    seq: int,
    text: str = "x",
    *,
    task_id: UUID | None = None,
    trace_id: UUID | None = None,
    agent_id: UUID | None = None,
    kind: str = "task.output",
) -> Event:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Event(seq, at, kind, task_id, trace_id, None, agent_id, None, "a test", {"text": text})


def page(*numbers: int, text: str = "x") -> Page:
    return Page([Frame(event(number, text)) for number in numbers])


def test_a_reader_may_have_so_many_events_waiting_and_falls_behind_with_one_more() -> None:
    outlet = Shown()
    outlet.is_ready = False
    reader = Subscription(Filter(), 0, outlet)
    for seq in range(1, subscription.BACKLOG + 1):
        reader.show(page(seq))
    assert not reader.fell_behind.is_set()

    reader.show(page(subscription.BACKLOG + 1))
    outlet.take_again()

    assert reader.fell_behind.is_set()
    assert outlet.numbers == []


@pytest.mark.parametrize(("missing", "fell_behind"), [(1, False), (0, True)])
def test_a_reader_may_have_so_much_text_waiting_and_then_falls_behind(missing: int, fell_behind: bool) -> None:
    outlet = Shown()
    outlet.is_ready = False
    reader = Subscription(Filter(), 0, outlet)
    empty = page(1, text="").size
    reader.show(page(1, text="x" * (subscription.BACKLOG_SIZE - empty - missing)))

    reader.show(page(2))

    assert reader.fell_behind.is_set() is fell_behind


def test_what_waited_is_shown_in_order_and_once_when_the_reader_takes_it_again() -> None:
    outlet = Shown()
    reader = Subscription(Filter(), 2, outlet)
    reader.show(page(1, 2, 3))
    outlet.is_ready = False
    reader.show(page(4, 5))
    reader.show(page(5, 6))
    assert outlet.numbers == [3]

    outlet.take_again()

    assert outlet.numbers == [3, 4, 5, 6]


async def test_readers_with_equal_filters_get_the_same_bytes_and_others_only_what_they_want() -> None:
    hub, mine = Hub(), uuid4()
    everything, again, one_trace, one_kind = Shown(), Shown(), Shown(), Shown()
    hub.attach(Filter(), everything, after=0)
    hub.attach(Filter(), again, after=0)
    hub.attach(Filter(trace_id=mine), one_trace, after=0)
    hub.attach(Filter(kinds=frozenset({"task.claimed"})), one_kind, after=0)

    await hub.publish([event(1), event(2, trace_id=mine), event(3, trace_id=uuid4(), kind="task.claimed")])

    assert (everything.numbers, one_trace.numbers, one_kind.numbers) == ([1, 2, 3], [2], [3])
    assert everything.pages[0].wire is again.pages[0].wire


TASK, TRACE, AGENT = uuid4(), uuid4(), uuid4()


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_reader_is_shown_only_what_matches_everything_that_it_named(is_late: bool) -> None:
    hub, outlet = Hub(), Shown()
    wanted = Filter(TASK, TRACE, AGENT, frozenset({"task.output"}))
    match: dict[str, Any] = {"task_id": TASK, "trace_id": TRACE, "agent_id": AGENT, "kind": "task.output"}
    others: dict[str, Any] = {"task_id": uuid4(), "trace_id": uuid4(), "agent_id": uuid4(), "kind": "task.failed"}
    events = [event(1, **match)]
    events += [event(seq, **match | {name: others[name]}) for seq, name in enumerate(others, start=2)]
    events += [event(6, **match | {"agent_id": None}), event(7, **match)]

    if not is_late:
        hub.attach(wanted, outlet, after=0)
    await hub.publish(events)
    if is_late:
        hub.attach(wanted, outlet, after=0)

    assert outlet.numbers == [1, 7]


async def test_a_reader_that_has_left_is_shown_nothing_more() -> None:
    hub, left, stays = Hub(), Shown(), Shown()
    reader = hub.attach(Filter(trace_id=TRACE), left, after=0)
    hub.attach(Filter(trace_id=TRACE), stays, after=0)
    await hub.publish([event(1, trace_id=TRACE)])

    assert reader is not None
    hub.detach(reader)
    await hub.publish([event(2, trace_id=TRACE)])

    assert (left.numbers, stays.numbers) == ([1], [1, 2])


@pytest.mark.parametrize(("name", "most"), [("RECENT", 3), ("RECENT_SIZE", 3 * Frame(event(1)).size)])
async def test_so_much_is_kept_for_readers_that_come_back_and_who_is_behind_it_reads_the_ledger(
    monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(hub_module, name, most)
    hub, late = Hub(), Shown()
    await hub.publish([event(seq) for seq in range(1, 10)])

    assert hub.attach(Filter(), Shown(), after=5) is None
    assert hub.attach(Filter(), late, after=6) is not None
    assert late.numbers == [7, 8, 9]


async def test_a_reader_that_takes_nothing_holds_up_nobody() -> None:
    hub, stuck, well = Hub(), Shown(), Shown()
    stuck.is_ready = False
    hub.attach(Filter(), stuck, after=0)
    hub.attach(Filter(), well, after=0)
    for seq in range(1, subscription.BACKLOG + 2):
        await hub.publish([event(seq)])

    assert well.numbers == list(range(1, subscription.BACKLOG + 2))
    assert stuck.numbers == []


async def test_while_many_readers_are_served_others_have_their_turn_and_a_reader_that_comes_sees_each_event_once() -> (
    None
):
    hub, late = Hub(), Shown()
    for _ in range(3 * AT_ONCE):
        hub.attach(Filter(), Shown(), after=0)
    publishing = asyncio.create_task(hub.publish([event(1), event(2)]))
    await asyncio.sleep(0)
    assert not publishing.done()

    newcomer = hub.attach(Filter(kinds=frozenset({"task.output"})), late, after=0)
    await publishing

    assert newcomer is not None
    assert late.numbers == [1, 2]
    assert hub.shown == 2


async def test_what_is_said_to_be_shown_has_been_shown_to_all() -> None:
    hub, last = Hub(), Shown()
    for _ in range(2 * AT_ONCE):
        hub.attach(Filter(), Shown(), after=0)
    reader = hub.attach(Filter(kinds=frozenset({"task.output"})), last, after=0)
    publishing = asyncio.create_task(hub.publish([event(1)]))
    await asyncio.sleep(0)

    assert reader is not None
    reader.beat(hub.shown)
    await publishing
    reader.beat(hub.shown)

    assert last.said == ['{"type":"heartbeat","seq":0}', '{"type":"heartbeat","seq":1}']


def test_what_is_written_at_once_is_bounded() -> None:
    third = "x" * (frame.PAGE_SIZE // 3)
    frames = [Frame(event(seq, third)) for seq in range(1, 6)]

    assert [[one.seq for one in cut.frames] for cut in frame.pages(frames)] == [[1, 2], [3, 4], [5]]


async def test_a_server_that_offers_no_wire_is_sent_one_text_after_the_other() -> None:
    sent: list[str] = []
    may_send = asyncio.Event()

    async def send(text: str) -> None:
        await may_send.wait()
        sent.append(text)

    outlet = ThroughAsgi(send)
    reader = Subscription(Filter(), 0, outlet)
    done = asyncio.Event()
    reader.show(page(1, 2))
    reader.show(page(3))
    assert not outlet.is_ready

    drain = outlet.on_ready

    def on_ready() -> None:
        drain()
        if outlet.is_ready:
            done.set()

    outlet.on_ready = on_ready
    may_send.set()
    await done.wait()

    assert sent == [Frame(event(seq)).text for seq in (1, 2, 3)]
