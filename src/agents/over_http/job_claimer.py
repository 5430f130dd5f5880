"""Claim jobs for the slots that wait for work: one request waits at the server when there is none."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from agents.over_http.client import QueueClient, Refused, ServerAway
from agents.over_http.handing_back import HandingBack
from agents.over_http.held import HeldJob, HeldJobs
from common.backoff import full_jitter
from common.clock import Clock
from common.loop import FIRST_PAUSE, LONGEST_PAUSE, Health, keep_running
from common.rest.jobs import ClaimAnswer

log = logging.getLogger(__name__)

# What is answered sooner did not wait: with a job, there may be more of them; with none, the next claim is held back,
# because a server that never waits, or a proxy that answers for it, must not be asked without a pause.
IDLE_SECONDS = 1.0
# With much to do and a server far away, so many claims travel side by side.
MOST_AT_ONCE = 8


@dataclass(slots=True)
class _Asking:
    """One claim, however often it is sent. `may_have_got`: the server may have given a job, and its answer was lost."""

    claim_id: UUID
    since: float
    may_have_got: bool = False


class JobClaimer:
    """Hands each job to the slot that has waited longest. Never claims more than slots wait for."""

    def __init__(
        self,
        client: QueueClient,
        held: HeldJobs,
        handing_back: HandingBack,
        clock: Clock,
        *,
        types: Sequence[str],
        wait: timedelta,
        health: Health,
    ) -> None:
        self._client = client
        self._held = held
        self._handing_back = handing_back
        self._clock = clock
        self._types = types
        self._health = health
        self._wait_seconds = wait.total_seconds()
        self._waiting: deque[asyncio.Future[HeldJob]] = deque()
        self._is_wanted = asyncio.Event()
        self._registered = asyncio.Event()
        self._asking: list[asyncio.Task[bool]] = []
        self._at_once = 1

    def registered(self) -> None:
        """The server knows this agent and its pool, so it may claim."""
        self._registered.set()

    async def next_job(self) -> HeldJob:
        """Wait for a job. One that arrives when the wait is given up goes to another slot, or back."""
        waiting: asyncio.Future[HeldJob] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._is_wanted.set()
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._stop_unwanted()
            elif waiting.done() and not waiting.cancelled():
                self.hand_out(waiting.result())
            raise

    def hand_out(self, held: HeldJob) -> None:
        """Give a job to a slot that waits, or back."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(held)
                break
        else:
            self._handing_back.give(held)
        self._stop_unwanted()

    async def run(self) -> None:
        """Claim while a slot waits, until cancelled."""
        await self._registered.wait()
        await keep_running("claims", self._claim_round, health=self._health)

    async def _claim_round(self) -> None:
        """Send one claim that waits at the server, and beside it more that do not, as long as all get something."""
        await self._is_wanted.wait()
        began = self._clock.monotonic()
        count = max(1, min(self._at_once, len(self._waiting)))
        waits = [self._wait_seconds, *[0.0] * (count - 1)]
        self._asking = [asyncio.create_task(self._claim_one(wait), name="claim") for wait in waits]
        try:
            await asyncio.wait(self._asking)
        finally:
            asking, self._asking = self._asking, []
            for task in asking:
                task.cancel()
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
        got, took = sum(outcome is True for outcome in outcomes), self._clock.monotonic() - began
        self._at_once = min(2 * count, MOST_AT_ONCE) if got == count and took < IDLE_SECONDS else 1
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        if not got and not any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes):
            await asyncio.sleep(max(0.0, IDLE_SECONDS - took))

    def _stop_unwanted(self) -> None:
        """Stop asking when no slot waits any more."""
        if not self._waiting:
            self._is_wanted.clear()
            for asking in self._asking:
                if asking is not asyncio.current_task():  # which has just got something
                    asking.cancel()

    async def _claim_one(self, wait_seconds: float) -> bool:
        """Ask until there is an answer, and hand out what it brings; say whether that was anything."""
        asking = _Asking(uuid4(), since=self._clock.monotonic())
        try:
            answer = await self._answer(asking, wait_seconds)
        except asyncio.CancelledError:
            if asking.may_have_got:
                self._handing_back.withdraw(asking.claim_id)
            raise
        if answer.job is None:
            return False
        held = HeldJob(answer.job, asking.since, asking.claim_id, answer.grant, answer.signature)
        self._held.add(held)
        self.hand_out(held)
        return True

    async def _answer(self, asking: _Asking, wait_seconds: float) -> ClaimAnswer:
        failures = 0
        while True:
            before, asking.may_have_got = asking.may_have_got, True
            try:
                return await self._client.claim(asking.claim_id, types=self._types, wait_seconds=wait_seconds)
            except ServerAway as failure:
                asking.may_have_got = before or failure.may_have_arrived
                failures += 1
                log.warning("claim.failed", extra={"failures": failures, "reason": str(failure)})
                pause = max(failure.retry_after, _pause(failures))
            except Refused as refusal:
                asking.may_have_got = before
                failures += 1
                log.error("claim.refused", extra={"failures": failures, "reason": str(refusal)})  # noqa: TRY400
                pause = LONGEST_PAUSE.total_seconds()
            await asyncio.sleep(pause)


def _pause(failures: int) -> float:
    return full_jitter(failures, base=FIRST_PAUSE, cap=LONGEST_PAUSE).total_seconds()
