"""A report is repeated until it is stored."""

import asyncio
from uuid import UUID

from agents.link.joining import RESULT, Report
from agents.link.reporter import Reporter
from common.broker.base import BrokerUnavailable, Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES, RESULTS
from common.protocol import ORCHESTRATOR, UnreadableEnvelope, WorkResultsEnvelope, decode, encode
from tests.factories import make_credit, make_results, make_unreadable

AGENT = UUID(int=7)


class Flaky(MemoryBroker):
    """Fails the first calls; records all of them."""

    def __init__(self, *, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures
        self.calls: list[tuple[Outgoing, ...]] = []

    async def publish(self, *messages: Outgoing) -> None:
        self.calls.append(messages)
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("away")
        await super().publish(*messages)


def make_envelope() -> UnreadableEnvelope:
    return UnreadableEnvelope(from_agent=str(AGENT), to_agent=ORCHESTRATOR, payload=make_unreadable(AGENT))


async def test_a_report_is_repeated_as_a_new_message_until_the_broker_has_it() -> None:
    broker = Flaky(failures=2)
    await broker.declare(*REPLY_QUEUES)
    async with Reporter(broker, AGENT, make_credit) as reporter:
        await reporter.send(RESULTS, make_envelope())

    assert len({call[0].message_id for call in broker.calls}) == 3
    assert len({call[0].body for call in broker.calls}) == 1
    assert await broker.depth(RESULTS) == 1


async def test_a_reply_queue_that_is_missing_is_made_again() -> None:
    broker = Flaky()
    await broker.declare(*REPLY_QUEUES)
    async with Reporter(broker, AGENT, make_credit) as reporter:
        await broker.delete(RESULTS)
        await reporter.send(RESULTS, make_envelope())

    assert await broker.depth(RESULTS) == 1


async def test_reports_that_come_together_are_published_together() -> None:
    broker = Flaky()
    await broker.declare(*REPLY_QUEUES)
    async with Reporter(broker, AGENT, make_credit) as reporter:
        await asyncio.gather(*(reporter.send(RESULTS, make_envelope()) for _ in range(20)))

    assert len(broker.calls) == 1
    assert await broker.depth(RESULTS) == 20


async def test_results_that_come_together_are_one_message_that_is_repeated_until_the_broker_has_it() -> None:
    broker = Flaky(failures=2)
    await broker.declare(*REPLY_QUEUES)
    results = make_results(AGENT, 20).results
    async with Reporter(broker, AGENT, make_credit) as reporter:
        await asyncio.gather(*(reporter.send_report(Report(RESULTS, RESULT, encode(one))) for one in results))

    assert [len(call) for call in broker.calls] == [1, 1, 1]
    assert len({call[0].message_id for call in broker.calls}) == 3
    assert await broker.depth(RESULTS) == 1
    envelope = decode(broker.calls[-1][0].body)
    assert isinstance(envelope, WorkResultsEnvelope)
    assert envelope.payload.results == results
