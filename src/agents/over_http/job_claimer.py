"""Claim jobs while the agent asks for work: one request waits at the server when there is none."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
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
    """Hands each job to `deliver`, which says whether the agent gets it. Never claims more than the agent asks for.

    It is closed until `open`.
    """

    def __init__(
        self,
        client: QueueClient,
        held: HeldJobs,
        handing_back: HandingBack,
        clock: Clock,
        *,
        types: Sequence[str],
        wait: timedelta,
        deliver: Callable[[HeldJob], Awaitable[bool]],
        health: Health,
    ) -> None:
        self._client = client
        self._held = held
        self._handing_back = handing_back
        self._clock = clock
        self._types = types
        self._deliver = deliver
        self._health = health
        self._wait_seconds = wait.total_seconds()
        self._limit = 0
        self._delivered = 0
        self._is_open = False
        self._is_wanted = asyncio.Event()
        self._asking: list[asyncio.Task[bool]] = []
        self._at_once = 1

    def allow(self, limit: int) -> None:
        """Let the agent have so many jobs in all, the earlier ones among them; a lower number changes nothing."""
        self._limit = max(self._limit, limit)
        self._settle()

    def open(self) -> None:
        """Claim, if the agent asks for work: the server knows it, and it takes some."""
        self._is_open = True
        self._settle()

    def close(self) -> None:
        """Claim nothing, and give up the claims that are on their way: what they got goes back."""
        self._is_open = False
        self._settle()
        for asking in self._asking:
            asking.cancel()

    async def run(self) -> None:
        """Claim while the agent asks for work, until cancelled."""
        await keep_running("claims", self._claim_round, health=self._health)

    def _settle(self) -> None:
        if self._is_open and self._delivered < self._limit:
            self._is_wanted.set()
        else:
            self._is_wanted.clear()

    async def _claim_round(self) -> None:
        """Send one claim that waits at the server, and beside it more that do not, as long as all get something."""
        await self._is_wanted.wait()
        began = self._clock.monotonic()
        count = max(1, min(self._at_once, self._limit - self._delivered))
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

    async def _claim_one(self, wait_seconds: float) -> bool:
        """Ask until there is an answer, and deliver what it brings; say whether that was anything."""
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
        is_delivered = await self._deliver(held)
        if is_delivered:
            self._delivered += 1
            self._settle()
        return is_delivered

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
