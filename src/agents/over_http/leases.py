"""Bring claimed jobs to the agent, and keep their leases.

A claim may have waited at the server for long, so the beginning of the lease that it brought is not known. Such a job
is renewed before the agent gets it: its lease then counts from when the renewal was sent.
"""

import asyncio
import logging
from uuid import UUID

from agents.over_http.client import QueueClient, Refused, ServerAway
from agents.over_http.handing_back import HandingBack
from agents.over_http.held import HeldJob, HeldJobs
from agents.over_http.inbox import Inbox
from agents.over_http.wire import granted
from common.clock import Clock
from common.messages import CancelTask, Grant, Lease, Renew, Renewed

log = logging.getLogger(__name__)

# How much of a lease may have passed when the agent gets the job; more, and it is renewed first.
FRESH = 0.1
# `agents.tasks.renew` waits for a sixth of the lease, and must get what was answered by then.
RENEWAL_PATIENCE = 1 / 8


class Leases:
    """Turns jobs into work of the agent, and answers its renewals."""

    def __init__(
        self, client: QueueClient, held: HeldJobs, handing_back: HandingBack, inbox: Inbox, clock: Clock
    ) -> None:
        self._client = client
        self._held = held
        self._handing_back = handing_back
        self._inbox = inbox
        self._clock = clock
        self._lease_seconds = client.lease_seconds

    async def bring(self, held: HeldJob) -> bool:
        """Put a job into the agent's work queue; False when it is not to be run, and then it goes back."""
        try:
            is_wanted = await self._freshen(held)
        except ServerAway as failure:
            log.warning("job.not_renewed", extra={"task_id": held.job.id, "reason": str(failure)})
            self._handing_back.give(held)
            return False
        except asyncio.CancelledError:
            self._handing_back.give(held)
            raise
        if is_wanted:
            held.is_granted = True
            task = granted(held.job, held.grant, claim_id=held.claim_id, lease_seconds=self._lease_seconds)
            await self._inbox.put_work(Grant(tasks=[task], signature=held.signature))
        return is_wanted

    async def _freshen(self, held: HeldJob) -> bool:
        """See to it that enough of the lease is left; False when the job is not to be run. Raises `ServerAway`."""
        now, job = self._clock.monotonic(), held.job
        if now - held.lease_from <= self._lease_seconds * FRESH:
            return True
        try:
            renewal = await self._client.renew(job.id, job.attempt)
        except Refused as refusal:
            log.info("lease.refused", extra={"task_id": job.id, "reason": str(refusal)})
            self._held.drop(job.id, job.attempt)
            return False
        held.lease_from = now
        if renewal.cancelled:
            self._handing_back.give(held, cancelled=True)
            return False
        return True

    async def renew(self, renewal: Renew) -> None:
        """Prolong every lease for itself, and say which are kept and which lost; the others were not answered."""
        asked = {asyncio.create_task(self._renew(lease), name="renew"): lease for lease in renewal.leases}
        done, late = await asyncio.wait(asked, timeout=self._lease_seconds * RENEWAL_PATIENCE)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        answers = {asked[task]: task.result() for task in done if task.exception() is None}
        kept = [lease for lease, is_kept in answers.items() if is_kept]
        lost = [lease for lease, is_kept in answers.items() if not is_kept]
        await self._inbox.put(
            Renewed(renewal_id=renewal.renewal_id, lease_seconds=self._lease_seconds, kept=kept, lost=lost)
        )
        failures = [failure for task in done if (failure := task.exception()) is not None]
        if failures or late:
            raise ServerAway(
                f"{len(failures) + len(late)} of {len(asked)}: {next(iter(failures), 'no answer in time')}"
            )

    async def _renew(self, lease: Lease) -> bool:
        """Say whether a lease is kept."""
        held = self._held.find(lease.task_id, lease.attempt)
        attempt = lease.attempt if held is None else held.job.attempt
        try:
            answer = await self._client.renew(lease.task_id, attempt)
        except Refused as refusal:
            log.info("lease.refused", extra={"task_id": lease.task_id, "reason": str(refusal)})
            return False
        if answer.cancelled:
            await self.cancelled(lease.task_id, attempt)
        return True

    async def cancelled(self, task_id: UUID, attempt: int) -> None:
        """Tell the slot once that its job was cancelled."""
        held = self._held.find(task_id, attempt)
        if held is not None and not held.is_cancelled:
            held.is_cancelled = True
            await self._inbox.put(CancelTask(task_id=task_id, attempt=attempt))
