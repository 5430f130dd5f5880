"""Bring every result to the ledger: onto disk and to the broker, and again until the orchestrator has it.

A broker that has confirmed a result can still lose it, and so can an orchestrator that took it and died. Therefore a
result is forgotten only when `Stored` names it. When the disk takes nothing, results are sent from memory all the same.

`Stored` may come before the disk has the result: then it is not written any more, or what was written goes.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from agents.disk.spool import Spool
from agents.disk.spool_lines import Key, WrittenResult
from agents.link.joining import RESULT, Report
from agents.link.reporter import Reporter
from common.backoff import exponential
from common.batching import Batcher
from common.broker.topology import RESULTS
from common.clock import Clock
from common.loop import Health, Wake, keep_running
from common.messages import Lease

log = logging.getLogger(__name__)

MAX_BATCH = 100
MAX_IN_MEMORY = 100
LONGEST_PAUSE = timedelta(minutes=5)
LONGEST_SLEEP = timedelta(seconds=60)
# How long what is stored gathers before the disk is told, in one go. The journal waits less with `ended`, so that every
# attempt is known to one of the two.
FORGET_AFTER = timedelta(seconds=0.5)


@dataclass(slots=True, eq=False)
class _Owed:
    """A result that may not be stored. `in_memory` holds it while the disk does not, which `is_refused` when it failed.

    `again_at`: when it is sent again; None while it has not been sent.
    """

    key: Key
    in_memory: WrittenResult | None
    is_refused: bool = False
    sent: int = 0
    again_at: float | None = None


class Handover:
    """The results that this agent owes. Use it as a context manager."""

    def __init__(
        self, spool: Spool, reporter: Reporter, clock: Clock, *, resend_after: timedelta, health: Health
    ) -> None:
        self._spool = spool
        self._reporter = reporter
        self._clock = clock
        self._resend_after = resend_after
        self._health = health
        self._owed: dict[Key, _Owed] = {}
        self._expected: frozenset[Key] = frozenset()
        # When `run` looks again; who has something for it before that rings.
        self._looks_at = -math.inf
        self._sooner = Wake()
        self._stored = Wake()
        # What is new and what is stored go to the disk together.
        self._batcher: Batcher[_Owed | list[Key], None] = Batcher(self._write, limit=MAX_BATCH)
        self._writing: set[asyncio.Future[None]] = set()
        self._to_forget: list[Key] = []
        self._forgetting: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self._batcher.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()
        await asyncio.gather(*self._writing, return_exceptions=True)
        await self._batcher.__aexit__(kind, error, trace)

    def __len__(self) -> int:
        return len(self._owed)

    def expect(self, keys: Iterable[Key]) -> None:
        """Note attempts of an earlier life whose results may be owed later."""
        self._expected = frozenset(keys)

    def owes(self, key: Key) -> bool:
        """Say whether a result of this attempt is on its way, also one that an earlier life of this agent left."""
        return key in self._owed or key in self._expected

    async def keep(self, result: WrittenResult) -> None:
        """Return when the result is on disk, or when that is known to be impossible."""
        await self._kept(result)

    async def send(self, result: WrittenResult, *, queue: str = RESULTS) -> None:
        """Return when the broker has a result that was kept before."""
        await self._send(Report(queue, RESULT, result.body), result.key)

    async def hand_over(
        self, result: WrittenResult, *, queue: str = RESULTS, kept: Callable[[], None] = lambda: None
    ) -> None:
        """Keep and send a result at the same time; `kept` is called as soon as it is kept."""
        keeping = self._kept(result)
        sending = self._reporter.hand_in(Report(queue, RESULT, result.body))
        try:
            await keeping
            kept()
            await sending
        finally:
            sending.cancel()
        self._sent(result.key)

    async def send_left(self, keys: Sequence[Key]) -> None:
        """Send what an earlier life of this agent left behind."""
        for key in keys:
            self._owed.setdefault(key, _Owed(key, None))
        for start in range(0, len(keys), MAX_BATCH):
            await asyncio.gather(*(self._send_again(key) for key in keys[start : start + MAX_BATCH]))
        if keys:
            log.info("results.left_sent", extra={"results": len(keys)})

    async def run(self) -> None:
        """Send again what is not known to be stored, until cancelled."""

        async def step() -> None:
            now = self._clock.monotonic()
            for key in [key for key, owed in self._owed.items() if owed.again_at is not None and owed.again_at <= now]:
                await self._send_again(key)
            pause = self._pause()
            self._looks_at = self._clock.monotonic() + pause.total_seconds()
            await self._sooner.wait(pause)

        await keep_running("handover", step, health=self._health)

    def stored(self, results: Iterable[Lease]) -> None:
        """These results are in the ledger, or can never be."""
        keys = [Key(lease.task_id, lease.attempt) for lease in results]
        self._to_forget += [key for key in keys if self._owed.pop(key, None) is not None]
        if self._to_forget and self._forgetting is None:
            later = FORGET_AFTER.total_seconds()
            self._forgetting = asyncio.get_running_loop().call_later(later, self._forget)
        self._stored.ring()

    async def settled(self, *, within: float) -> bool:
        """Wait until nothing that was sent is owed any more; False when it takes too long."""
        try:
            async with asyncio.timeout(within):
                while any(owed.sent for owed in self._owed.values()):
                    await self._stored.rung()
        except TimeoutError:
            return False
        return True

    async def _send_again(self, key: Key) -> None:
        owed = self._owed.get(key)
        if owed is None:
            return
        result = owed.in_memory or await asyncio.to_thread(self._spool.read, key)
        if result is None:
            self._owed.pop(key, None)
            return
        if owed.sent:
            log.warning("result.sent_again", extra={"task_id": key.task_id, "attempt": key.attempt, "sent": owed.sent})
        # Whatever it was that kept it from the ledger, the next time it shares its fate with no other.
        await self._send(Report(RESULTS, RESULT, result.body, is_alone=owed.sent > 0), key)

    async def _send(self, report: Report, key: Key) -> None:
        await self._reporter.send_report(report)
        self._sent(key)

    def _sent(self, key: Key) -> None:
        owed = self._owed.get(key)
        if owed is None:
            return  # stored in the same breath
        owed.sent += 1
        pause = exponential(owed.sent, base=self._resend_after, cap=max(LONGEST_PAUSE, self._resend_after))
        owed.again_at = self._clock.monotonic() + pause.total_seconds()
        if owed.again_at < self._looks_at:
            self._sooner.ring()

    def _pause(self) -> timedelta:
        now = self._clock.monotonic()
        due = [owed.again_at - now for owed in self._owed.values() if owed.again_at is not None]
        return min(LONGEST_SLEEP, timedelta(seconds=max(0.0, min(due)))) if due else LONGEST_SLEEP

    def _kept(self, result: WrittenResult) -> asyncio.Future[None]:
        """Owe a result. It is brought to disk also when the caller stops waiting for that."""
        owed = self._owed[result.key] = _Owed(result.key, result)
        return asyncio.shield(self._hand_in(owed))

    def _forget(self) -> None:
        """Tell the disk what is stored, and not owed anew since."""
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        if keys := [key for key in self._to_forget if key not in self._owed]:
            self._hand_in(keys)
        self._to_forget.clear()

    def _hand_in(self, item: _Owed | list[Key]) -> asyncio.Future[None]:
        writing = self._batcher.hand_in(item)
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        return writing

    async def _write(self, items: Sequence[_Owed | list[Key]]) -> Sequence[None]:
        # What was stored, or is owed anew, since it was handed in needs no place on the disk.
        owed = [item for item in items if isinstance(item, _Owed) and self._owed.get(item.key) is item]
        stored = [key for item in items if not isinstance(item, _Owed) for key in item]
        results = [one.in_memory for one in owed if one.in_memory is not None]
        failures = await asyncio.to_thread(self._to_disk, results, stored) if results or stored else []
        for one, failure in zip(owed, failures, strict=True):
            if failure is None:
                one.in_memory = None
            else:
                one.is_refused = True
                log.error("spool.failed", extra={"task_id": one.key.task_id, "reason": str(failure)})
        if any(failures):
            self._drop_the_oldest()
        return [None] * len(items)

    def _drop_the_oldest(self) -> None:
        in_memory = [key for key, owed in self._owed.items() if owed.is_refused]
        for key in in_memory[:-MAX_IN_MEMORY]:
            log.error("result.dropped", extra={"task_id": key.task_id, "reason": "no room on disk, too many in memory"})
            del self._owed[key]

    def _to_disk(self, results: Sequence[WrittenResult], stored: Sequence[Key]) -> Sequence[Exception | None]:
        """Return for each result what kept it from the disk."""
        try:
            if stored:
                self._spool.forget(stored)
            return self._spool.keep(results) if results else []
        except Exception as refused:  # whatever the disk does, a result is owed and sent from memory
            log.exception("spool.broken")
            return [refused] * len(results)
