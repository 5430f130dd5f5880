"""Bring reports to the orchestrator: a report is repeated until the broker has stored it.

What arrives together is published in one call. Reports wait in memory; each attempt waits for its own, so there are
never more than a few for each slot.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

from agents.link.joining import AskForWork, Report, calls, joined
from common.backoff import full_jitter
from common.batching import Batcher
from common.broker.base import Broker, BrokerUnavailable, Outgoing, Unroutable
from common.broker.topology import REPLY_QUEUES, reply_address
from common.protocol import MOST_RESULTS, Envelope, encode

log = logging.getLogger(__name__)

MAX_BATCH = MOST_RESULTS
FIRST_PAUSE = timedelta(milliseconds=100)
LONGEST_PAUSE = timedelta(seconds=5)


class Reporter:
    """Publishes reports, again and again if need be; results `ask` for more work. Use it as a context manager."""

    def __init__(self, broker: Broker, agent_id: UUID, ask: AskForWork) -> None:
        self._broker = broker
        self._ask = ask
        self._agent_id = agent_id
        self._batcher: Batcher[Report, None] = Batcher(self._store, limit=MAX_BATCH)

    async def __aenter__(self) -> Self:
        await self._batcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._batcher.__aexit__(kind, error, trace)

    async def send(self, queue: str, envelope: Envelope) -> None:
        """Return when the envelope is stored in the reply queue, however long that takes."""
        await self.post(queue, envelope)

    def post(self, queue: str, envelope: Envelope) -> asyncio.Future[None]:
        """Return what is done when the envelope is stored; it goes behind all that was handed in before."""
        return self.hand_in(Report(queue, envelope.type, encode(envelope)))

    async def send_report(self, report: Report) -> None:
        """Do the same with what is encoded already."""
        await self.hand_in(report)

    def hand_in(self, report: Report) -> asyncio.Future[None]:
        """Return what is done when the report is stored."""
        return self._batcher.hand_in(report)

    async def _store(self, reports: Sequence[Report]) -> Sequence[None]:
        for call in calls(joined(self._agent_id, reports, self._ask)):
            await self._publish(call)
        return [None] * len(reports)

    async def _publish(self, reports: Sequence[Report]) -> None:
        failures = 0
        while True:
            try:
                await self._broker.publish(*map(self._message, reports))
            except BrokerUnavailable as failure:
                failures += 1
                log.warning(
                    "report.waits", extra={"reports": len(reports), "failures": failures, "reason": str(failure)}
                )
                if isinstance(failure, Unroutable):  # a reply queue was deleted
                    with suppress(BrokerUnavailable):
                        await self._broker.declare(*REPLY_QUEUES)
                await asyncio.sleep(full_jitter(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE).total_seconds())
            else:
                return

    def _message(self, report: Report) -> Outgoing:
        return Outgoing(reply_address(self._agent_id, report.queue), report.body, report.type)
