"""Bring repairs to their end that an earlier process of this agent, or a failure, has left without one.

What is on disk of them says what to undo. How each ended is reported until the orchestrator has it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from agents.attempts.owned import Attempts
from agents.processes.keepers import Starter
from agents.processes.table import ATTEMPT_VARIABLE, TASK_VARIABLE, Target, kill_all
from agents.repairs.log import Secrets
from agents.repairs.outbox import Ended, Outbox
from agents.repairs.programs import Programs
from agents.repairs.state import POSITIONS, ROLLBACK, End, Unit
from agents.repairs.store import ServiceBusy, StateUnreadable, Store
from agents.repairs.unit import hand_over, take_back
from agents.repairs.work import Keep, Work
from common.clock import Clock, SystemClock
from common.loop import Health, Wake, keep_running
from common.messages import StepReport, StepStatus
from common.orders import Settle, StepsStored
from common.redaction.values import Values

log = logging.getLogger(__name__)

EVERY = timedelta(seconds=15)
# What an earlier process has started dies with it; so long is looked for what has not.
KILL_SECONDS = 5.0
CUT_OFF = "The agent ended while the repair was under way."
NOT_EXPECTED = "The task had ended before the repair was prepared."
NEVER_BEGAN = "The repair never began on this host."

# Brings the inner steps of an attempt to the orchestrator: its task, its number, its trace, the steps.
ReportSteps = Callable[[UUID, int, UUID | None, Sequence[StepReport]], "asyncio.Future[None]"]
# Returns what keeps files of an attempt: its task, its number, its trace.
KeepFor = Callable[[UUID, int, UUID | None], Keep]


class Key(NamedTuple):
    task_id: UUID
    attempt: int


class _Sent(NamedTuple):
    """When a repair's end was last sent, and what is done once that has arrived."""

    at: float
    arrived: "asyncio.Future[None]"


class Settler:
    """The end of every repair on this host that is not under way in an executor.

    `environment` is what git, docker and compose see, beside what the repair itself had of docker's variables.
    `attempts` are those of this process, which end by themselves.
    """

    def __init__(
        self,
        store: Store,
        *,
        starter: Starter,
        environment: Mapping[str, str],
        attempts: Attempts,
        report: ReportSteps,
        keep: KeepFor,
        known_secrets: Values | None = None,
        clock: Clock | None = None,
        health: Health,
        every: timedelta = EVERY,
    ) -> None:
        self._store = store
        self._outbox = Outbox(store.folder)
        self._starter = starter
        self._environment = environment
        self._attempts = attempts
        self._report = report
        self._keep = keep
        self._known_secrets = known_secrets
        self._clock = clock or SystemClock()
        self._health = health
        self._every = every
        self._bell = Wake()
        self._stored: set[Key] = set()
        self._asked: set[Key] = set()
        self._sent: dict[Key, _Sent] = {}
        self._unreadable: set[str] = set()
        self._ahead: dict[str, Unit] = {}
        self._undoing = asyncio.Lock()
        self._is_leaving = False

    async def run(self) -> None:
        """Look at all repairs now and again, until cancelled."""

        async def step() -> None:
            await self.run_once()
            await self._bell.wait(self._every)

        await keep_running("settler", step, health=self._health)

    def steps_stored(self, order: StepsStored) -> None:
        """How a repair ended is in the ledger."""
        if order.through == ROLLBACK:
            self._stored.add(Key(order.task_id, order.attempt))
            self._bell.ring()

    def settle(self, order: Settle) -> None:
        """The orchestrator asks how a repair ended."""
        if self._attempts.find(order.task_id, order.attempt) is None:
            self._asked.add(Key(order.task_id, order.attempt))
            self._bell.ring()

    async def leave(self, *, within: float) -> None:
        """Begin to undo nothing more, and wait until what is being undone is. The next start goes on with the rest."""
        self._is_leaving = True
        try:
            async with asyncio.timeout(within), self._undoing:
                pass
        except TimeoutError:
            log.error("repair.left_undoing", extra={"within": within})  # noqa: TRY400

    async def run_once(self) -> None:
        """End what has no end, say how what has one ended, and answer what was asked."""
        await asyncio.to_thread(self._forget)
        for key in await asyncio.to_thread(self._store.keys):
            try:
                # Looked at without the lock, which the next repair of a service in order may want at this moment.
                if await self._is_in_order(key):
                    continue
                with self._store.holding(key):
                    await self._put_in_order(key)
            except ServiceBusy:
                continue
            except Exception:  # what is wrong with one service keeps no other from its end
                log.exception("repair.not_settled", extra={"service": key})
        await self._send()

    async def _is_in_order(self, key: str) -> bool:
        try:
            unit = await asyncio.to_thread(self._store.read, key)
        except StateUnreadable as problem:
            if key not in self._unreadable:
                self._unreadable.add(key)
                log.error("repair.unreadable", extra={"service": key, "reason": str(problem)})  # noqa: TRY400
            return True
        return unit is None or unit.handed_over

    async def _put_in_order(self, key: str) -> None:
        unit = await asyncio.to_thread(self._store.read, key)
        if unit is None or unit.handed_over:
            return
        ahead = self._ahead.pop(key, None)
        if ahead is not None and (ahead.task_id, ahead.attempt) == (unit.task_id, unit.attempt):
            unit = ahead
        if unit.end is not None:
            work = await self._work(unit)
            await hand_over(work)
            self._remember(work)
            return
        target = Target(str(unit.task_id), unit.attempt, ())
        killed = await asyncio.to_thread(kill_all, [target], within=KILL_SECONDS)
        named = {"service": unit.service, "task_id": unit.task_id}
        log.warning("repair.left_behind", extra={**named, "killed": sorted(killed)})
        await self._take_back(unit, unit.cause or CUT_OFF)

    async def _take_back(self, unit: Unit, cause: str, **changes: object) -> None:
        """Undo a repair, of which `changes` are brought to disk before; an agent that leaves begins with none."""
        async with self._undoing:
            if self._is_leaving:
                return
            work = await self._work(unit)
            if changes:
                await work.note(**changes)
            await take_back(work, cause)
            self._remember(work)

    def _remember(self, work: Work) -> None:
        """Keep what could not be brought to disk: what is undone is not undone once more."""
        if not work.is_on_disk:
            self._ahead[work.unit.key] = work.unit

    async def _work(self, unit: Unit) -> Work:
        ids = {TASK_VARIABLE: str(unit.task_id), ATTEMPT_VARIABLE: str(unit.attempt)}
        programs = Programs(self._starter, {**self._environment, **unit.docker, **ids}, self._store.folder)
        work = Work(
            self._store,
            unit,
            programs=programs,
            lasting=programs,
            secrets=Secrets(self._environment, self._known_secrets),
            step=_Voice(self._post, unit),
            keep=self._keep(unit.task_id, unit.attempt, unit.trace_id),
            clock=self._clock,
        )
        await asyncio.to_thread(work.secrets.learn, work.workspace)
        return work

    def _forget(self) -> None:
        while self._stored:
            key = self._stored.pop()
            self._outbox.forget(*key)
            self._sent.pop(key, None)

    async def _send(self) -> None:
        """Send what is not known to be stored, and answer the orchestrator."""
        asked, self._asked = self._asked, set()
        now, known = self._clock.monotonic(), set[Key]()
        for ended in await asyncio.to_thread(self._outbox.all):
            key = Key(ended.task_id, ended.attempt)
            known.add(key)
            last = self._sent.get(key)
            is_due = last is None or key in asked or now - last.at >= self._every.total_seconds()
            # One that is on its way waits for the broker already.
            if is_due and (last is None or last.arrived.done()):
                self._sent[key] = _Sent(now, self._post(ended))
        for key in asked - known:
            try:
                await self._answer(key)
            except Exception:  # asked again; what is wrong with one keeps no other from its answer
                log.exception("repair.not_answered", extra={"task_id": key.task_id})

    async def _answer(self, key: Key) -> None:
        """Say how a repair ended of which nothing waits to be sent; one without an end is ended first, by itself."""
        try:
            unit = await asyncio.to_thread(self._store.find, *key)
        except StateUnreadable as problem:
            self._post(self._only(key, StepStatus.FAILED, str(problem)))
            return
        if unit is None:
            self._post(self._only(key, StepStatus.SKIPPED, NEVER_BEGAN))
        elif unit.end is End.PREPARED:
            await self._discard(key, unit.key)
        elif unit.end is not None:
            self._post(Ended.of(unit))

    async def _discard(self, key: Key, service_key: str) -> None:
        """Take back what was prepared: nobody knows that it was, so nobody goes on with it."""
        try:
            with self._store.holding(service_key):
                unit = await asyncio.to_thread(self._store.find, *key)
                if unit is not None and unit.end is End.PREPARED:
                    await self._take_back(unit, NOT_EXPECTED, end=None, handed_over=False)
        except ServiceBusy:
            return  # another repair of the service has begun, which throws away what was prepared

    def _only(self, key: Key, status: StepStatus, message: str) -> Ended:
        """Return the end of a repair of which nothing else is known."""
        now = self._clock.now()
        report = StepReport(
            position=POSITIONS[ROLLBACK],
            name=ROLLBACK,
            status=status,
            started_at=now,
            finished_at=now,
            message=message,
        )
        return Ended(task_id=key.task_id, attempt=key.attempt, trace_id=None, reports=[report])

    def _post(self, ended: Ended) -> "asyncio.Future[None]":
        posted = self._report(ended.task_id, ended.attempt, ended.trace_id, ended.reports)
        posted.add_done_callback(_arrived)
        return posted


class _Voice:
    """Reports the steps of one repair."""

    def __init__(self, post: Callable[[Ended], object], unit: Unit) -> None:
        self._post = post
        self._unit = unit

    def __call__(
        self,
        position: int,
        name: str,
        status: StepStatus,
        message: str = "",
        started_at: datetime | None = None,
        finished_at: datetime | None = None,
    ) -> None:
        report = StepReport(
            position=position,
            name=name,
            status=status,
            message=message,
            started_at=started_at,
            finished_at=finished_at,
        )
        self._post(Ended.of(self._unit.changed(reports=[report])))


def _arrived(sent: "asyncio.Future[None]") -> None:
    if not sent.cancelled():  # an agent that stops gives up what waits
        sent.exception()  # known: it is sent again until it is stored
