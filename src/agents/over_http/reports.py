"""Bring output, progress and results to the server, and say what is stored there.

A job's reports go one after another, in the order in which they were made; those of different jobs side by side. The
pieces of output that a result carries go ahead of it. After a lost answer the publisher sends again.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from agents.over_http.client import QueueClient, Refused
from agents.over_http.held import HeldJobs
from agents.over_http.inbox import Inbox
from agents.over_http.wire import end, output, progress
from common.messages import Lease, OutputChunk, Stored, WorkResult, WorkStatus
from common.rest.jobs import OutputRequest, ProgressRequest

log = logging.getLogger(__name__)

Report = WorkStatus | WorkResult


class Reports:
    """Sends what slots report."""

    def __init__(self, client: QueueClient, held: HeldJobs, inbox: Inbox) -> None:
        self._client = client
        self._held = held
        self._inbox = inbox

    async def send(self, reports: Sequence[Report]) -> None:
        """Return when all are stored, or refused for good. Raises `ServerAway` when that is not known of some."""
        by_job: dict[UUID, list[Report]] = defaultdict(list)
        for report in reports:
            by_job[report.task_id].append(report)
        outcomes = await asyncio.gather(*map(self._send_in_order, by_job.values()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _send_in_order(self, reports: Sequence[Report]) -> None:
        for report in reports:
            match report:
                case WorkStatus():
                    await self._output(report.task_id, report.attempt, report.chunks)
                    if report.progress:
                        await self._progress(report)
                case WorkResult():
                    await self._output(report.task_id, report.attempt, report.chunks)
                    await self._result(report)

    async def _output(self, task_id: UUID, attempt: int, chunks: Sequence[OutputChunk]) -> None:
        """Send pieces. Those of a lease that is over are not wanted any more."""
        for chunk in chunks:
            try:
                await self._client.report(task_id, OutputRequest, output(chunk, attempt=attempt))
            except Refused as refusal:
                _log_refusal("output.refused", task_id, refusal)

    async def _progress(self, status: WorkStatus) -> None:
        """Say where a job stands. A report of a lease that is over is dropped."""
        try:
            await self._client.report(status.task_id, ProgressRequest, progress(status))
        except Refused as refusal:
            _log_refusal("progress.refused", status.task_id, refusal)

    async def _result(self, result: WorkResult) -> None:
        try:
            await self._client.report(result.task_id, *end(result))
        except Refused as refusal:
            # It will never count, so there is nothing left to keep it for.
            _log_refusal("result.refused", result.task_id, refusal)
        self._held.drop(result.task_id, result.attempt)
        await self._inbox.put(Stored(results=[Lease(task_id=result.task_id, attempt=result.attempt)]))


def _log_refusal(event: str, task_id: UUID, refusal: Refused) -> None:
    level = logging.ERROR if refusal.is_fault else logging.INFO
    log.log(level, event, extra={"task_id": task_id, "status": refusal.status, "reason": str(refusal)})
