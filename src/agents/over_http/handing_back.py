"""Give back claimed jobs that this agent is not going to run, so that others need not wait for the lease."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

from agents.over_http.client import QueueClient, Refused, ServerAway
from agents.over_http.held import HeldJob, HeldJobs
from common.backoff import full_jitter
from common.clock import Clock
from common.errors import ErrorCode
from common.loop import FIRST_PAUSE, LONGEST_PAUSE
from common.rest.jobs import FailRequest, Job

log = logging.getLogger(__name__)

UNTOUCHED = {
    "started": False,
    "retryable": True,
    "error_code": ErrorCode.AGENT_UNAVAILABLE,
    "error_message": "The agent had no use for the job any more and did not start it.",
}


class HandingBack:
    """Works in the background. What cannot be handed back before its lease ends is free then by itself."""

    def __init__(self, client: QueueClient, held: HeldJobs, clock: Clock) -> None:
        self._client = client
        self._held = held
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()

    def give(self, held: HeldJob, *, cancelled: bool = False) -> None:
        """Hand back a job that was not started, or say that one that was cancelled is not running."""
        until = held.lease_from + self._client.lease_seconds
        self._spawn(self._give(held.job, until=until, cancelled=cancelled))

    def withdraw(self, claim_id: UUID) -> None:
        """Find out what a claim got whose answer came too late, and hand that back."""
        self._spawn(self._withdraw(claim_id, until=self._clock.monotonic() + self._client.lease_seconds))

    async def settled(self, *, within: float) -> None:
        """Wait until nothing is on its way any more, and give up what then still is."""
        if self._running:
            await asyncio.wait(self._running, timeout=within)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="hand back")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _withdraw(self, claim_id: UUID, *, until: float) -> None:
        failures = 0
        while self._clock.monotonic() < until:
            try:
                job = (await self._client.claim(claim_id, types=(), wait_seconds=0)).job
            except ServerAway:
                failures += 1
                await _pause(failures)
            except Refused as refusal:
                log.error("claim.not_withdrawn", extra={"claim_id": claim_id, "reason": str(refusal)})  # noqa: TRY400
                return
            else:
                if job is not None:
                    await self._give(job, until=until)
                return

    async def _give(self, job: Job, *, until: float, cancelled: bool = False) -> None:
        said = {"attempt": job.attempt, **UNTOUCHED, "cancelled": cancelled}
        failures = 0
        try:
            while self._clock.monotonic() < until:
                try:
                    await self._client.report(job.id, FailRequest, said)
                except ServerAway:
                    failures += 1
                    await _pause(failures)
                except Refused as refusal:
                    log.info("job.not_taken_back", extra={"task_id": job.id, "reason": str(refusal)})
                    return
                else:
                    log.info("job.handed_back", extra={"task_id": job.id, "trace_id": job.trace_id})
                    return
        finally:
            self._held.drop(job.id, job.attempt)


async def _pause(failures: int) -> None:
    await asyncio.sleep(full_jitter(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE).total_seconds())
