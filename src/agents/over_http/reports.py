"""Bring output, progress, inner steps, files and results to the server, and say what is stored there.

A job's reports go one after another, in the order in which they were made; those of different jobs side by side, and so
do pieces of files that work needs. The pieces of output that a result carries go ahead of it. After a lost answer the
publisher sends again.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from typing import Any
from uuid import UUID

from agents.over_http.client import QueueClient, Refused
from agents.over_http.held import HeldJobs
from agents.over_http.inbox import Inbox
from agents.over_http.wire import end, output, piece, progress, steps
from common.messages import LAST_STEP, LONGEST_MESSAGE, Lease, OutputChunk, Stored, WantFile, WorkResult, WorkStatus
from common.orders import ArtifactsStored, FilePiece, StepsStored
from common.progress import on_one_line
from common.rest.jobs import OutputRequest, ProgressRequest

log = logging.getLogger(__name__)

Report = WorkStatus | WorkResult | WantFile


class Reports:
    """Sends what slots report."""

    def __init__(self, client: QueueClient, held: HeldJobs, inbox: Inbox) -> None:
        self._client = client
        self._held = held
        self._inbox = inbox

    async def send(self, reports: Sequence[Report]) -> None:
        """Return when all are stored, or refused for good. Raises `ServerAway` when that is not known of some."""
        by_job: dict[UUID, list[WorkStatus | WorkResult]] = defaultdict(list)
        sending: list[Coroutine[Any, Any, None]] = []
        for report in reports:
            if isinstance(report, WantFile):
                sending.append(self._fetch(report))
            else:
                by_job[report.task_id].append(report)
        sending += map(self._send_in_order, by_job.values())
        outcomes = await asyncio.gather(*sending, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _send_in_order(self, reports: Sequence[WorkStatus | WorkResult]) -> None:
        for report in reports:
            match report:
                case WorkStatus():
                    await self._output(report.task_id, report.attempt, report.chunks)
                    if report.progress:
                        await self._progress(report)
                    if report.steps:
                        await self._steps(report)
                    await self._files(report)
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

    async def _steps(self, status: WorkStatus) -> None:
        """Say where inner steps stand, and tell the host when it may forget how they ended."""
        try:
            answer = await self._client.report_steps(status.task_id, steps(status.steps, attempt=status.attempt))
            through = answer.through
        except Refused as refusal:
            _log_refusal("steps.refused", status.task_id, refusal)
            # They will never count, so there is nothing left to keep them for.
            is_end = any(report.name == LAST_STEP and report.status.is_final for report in status.steps)
            through = LAST_STEP if is_end else None
        if through is not None:
            await self._inbox.put(StepsStored(task_id=status.task_id, attempt=status.attempt, through=through))

    async def _files(self, status: WorkStatus) -> None:
        """Send pieces of files that a job keeps, and tell of each file that is stored, or never will be."""
        stored: set[str] = set()
        refused: dict[str, str] = {}
        for kept in status.pieces:
            if kept.name in refused:
                continue
            try:
                answer = await self._client.keep(status.task_id, piece(kept, attempt=status.attempt))
            except Refused as refusal:
                _log_refusal("artifact.refused", status.task_id, refusal)
                refused[kept.name] = _line(str(refusal))
            else:
                if answer.refused is not None:
                    refused[kept.name] = _line(answer.refused)
                elif answer.stored:
                    stored.add(kept.name)
        if stored or refused:
            await self._inbox.put(
                ArtifactsStored(
                    task_id=status.task_id, attempt=status.attempt, names=sorted(stored - set(refused)), refused=refused
                )
            )

    async def _fetch(self, want: WantFile) -> None:
        """Bring a piece of a file that work needs, or what is wrong with it."""
        try:
            found = await self._client.fetch(want)
        except Refused as refusal:
            _log_refusal("file.refused", want.task_id, refusal)
            found = FilePiece(want_id=want.want_id, problem=_line(str(refusal)))
        if found is not None:
            await self._inbox.put(found)

    async def _result(self, result: WorkResult) -> None:
        try:
            await self._client.report(result.task_id, *end(result))
        except Refused as refusal:
            # It will never count, so there is nothing left to keep it for.
            _log_refusal("result.refused", result.task_id, refusal)
        self._held.drop(result.task_id, result.attempt)
        await self._inbox.put(Stored(results=[Lease(task_id=result.task_id, attempt=result.attempt)]))


def _line(reason: str) -> str:
    """Return a reason as messages carry it."""
    return on_one_line(reason)[:LONGEST_MESSAGE]


def _log_refusal(event: str, task_id: UUID, refusal: Refused) -> None:
    level = logging.ERROR if refusal.is_fault else logging.INFO
    log.log(level, event, extra={"task_id": task_id, "status": refusal.status, "reason": str(refusal)})
