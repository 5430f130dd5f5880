"""Bring every file that is kept to the orchestrator: in pieces, and again until it is stored there.

The files of an attempt go one after the other, those of several attempts side by side. A few pieces of each are on
their way at a time, so that an outage costs no memory and results are not held up. A file is forgotten only when
`ArtifactsStored` names it.
"""

import asyncio
import base64
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import NamedTuple, Self
from uuid import UUID

from agents.artifacts.spool import Artifact, ArtifactKey, ArtifactSpool
from agents.link.reporter import Reporter
from common.artifacts import MAX_PIECE_BYTES
from common.backoff import exponential
from common.broker.topology import PROGRESS
from common.clock import Clock
from common.loop import Health, Wake, keep_running
from common.messages import ArtifactPiece, WorkStatus
from common.orders import ArtifactsStored
from common.protocol import ORCHESTRATOR, WorkStatusEnvelope

log = logging.getLogger(__name__)

# Pieces of one file that are on their way, and attempts whose files are.
MOST_UNDER_WAY = 4
MOST_ATTEMPTS = 4
LONGEST_PAUSE = timedelta(minutes=5)
LONGEST_SLEEP = timedelta(seconds=60)


class _Of(NamedTuple):
    task_id: UUID
    attempt: int


@dataclass(slots=True, eq=False)
class _Owed:
    """A file that may not be stored. `sent`: how often it went whole; `again_at`: when it goes again."""

    artifact: Artifact
    again_at: float
    sent: int = 0


class ArtifactSender:
    """The files that this agent owes. Use it as a context manager."""

    def __init__(
        self,
        spool: ArtifactSpool,
        reporter: Reporter,
        agent_id: UUID,
        clock: Clock,
        *,
        resend_after: timedelta,
        health: Health,
    ) -> None:
        self._spool = spool
        self._reporter = reporter
        self._agent_id = agent_id
        self._clock = clock
        self._resend_after = resend_after
        self._health = health
        self._owed: dict[_Of, dict[str, _Owed]] = {}
        self._senders: dict[_Of, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(MOST_ATTEMPTS)
        self._to_forget: list[ArtifactKey] = []
        # Set for a moment when a file was sent or stored.
        self._news = asyncio.Event()
        self._sooner = Wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        senders = list(self._senders.values())
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
        await self._forget()

    def __len__(self) -> int:
        return sum(map(len, self._owed.values()))

    def owe(self, artifacts: Iterable[Artifact]) -> None:
        """Send files that are in the spool, from now on."""
        for artifact in artifacts:
            of = _Of(artifact.task_id, artifact.attempt)
            self._owed.setdefault(of, {}).setdefault(artifact.name, _Owed(artifact, self._clock.monotonic()))
            self._send_soon(of)

    def has_sent(self, task_id: UUID, attempt: int) -> bool:
        """Return whether all files of an attempt went to the orchestrator at least once."""
        return all(owed.sent for owed in self._owed.get(_Of(task_id, attempt), {}).values())

    async def sent(self, task_id: UUID, attempt: int) -> None:
        """Return when all files of an attempt are with the broker, for the first time."""
        while not self.has_sent(task_id, attempt):
            await self._news.wait()

    async def settled(self, *, within: float) -> bool:
        """Wait until nothing that was sent is owed any more; False when it takes too long."""
        try:
            async with asyncio.timeout(within):
                while any(one.sent for owed in self._owed.values() for one in owed.values()):
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def stored(self, order: ArtifactsStored) -> None:
        """These files are stored, or can never be."""
        of = _Of(order.task_id, order.attempt)
        owed = self._owed.get(of, {})
        for name in (*order.names, *order.refused):
            if owed.pop(name, None) is None:
                continue
            if name in order.refused:
                log.warning(
                    "artifact.refused",
                    extra={"task_id": order.task_id, "artifact": name, "reason": order.refused[name]},
                )
            self._to_forget.append(ArtifactKey(order.task_id, order.attempt, name))
        if not owed:
            self._owed.pop(of, None)
        self._tell()
        self._sooner.ring()

    async def run(self) -> None:
        """Send again what is not known to be stored, and forget what is, until cancelled."""

        async def step() -> None:
            await self._forget()
            now = self._clock.monotonic()
            for of, owed in self._owed.items():
                if any(one.again_at <= now for one in owed.values()):
                    self._send_soon(of)
            await self._sooner.wait(self._pause(now))

        await keep_running("artifacts", step, health=self._health)

    def _pause(self, now: float) -> timedelta:
        due = [one.again_at - now for owed in self._owed.values() for one in owed.values() if one.again_at > now]
        return min(LONGEST_SLEEP, timedelta(seconds=min(due))) if due else LONGEST_SLEEP

    async def _forget(self) -> None:
        keys, self._to_forget = self._to_forget, []
        # What is owed anew since stays.
        keys = [key for key in keys if key.name not in self._owed.get(_Of(key.task_id, key.attempt), {})]
        if keys:
            await asyncio.to_thread(self._spool.forget, keys)

    def _tell(self) -> None:
        self._news.set()
        self._news.clear()

    def _send_soon(self, of: _Of) -> None:
        if of not in self._senders:
            self._senders[of] = asyncio.create_task(self._send_all(of), name="artifacts of an attempt")

    async def _send_all(self, of: _Of) -> None:
        """Send the files of an attempt that are due, the oldest first."""
        try:
            async with self._turns:
                while (owed := self._due(of)) is not None:
                    try:
                        await self._send(owed)
                    except Exception as failure:  # what cannot be read cannot be sent, now or later
                        log.exception(
                            "artifact.lost",
                            extra={"task_id": of.task_id, "artifact": owed.artifact.name, "reason": str(failure)},
                        )
                        self._give_up(of, owed)
                    self._tell()
        finally:
            # In the same turn in which nothing was due any more: what comes now gets a sender of its own.
            self._senders.pop(of, None)
            self._sooner.ring()

    def _due(self, of: _Of) -> _Owed | None:
        now = self._clock.monotonic()
        return next((one for one in self._owed.get(of, {}).values() if one.again_at <= now), None)

    def _give_up(self, of: _Of, owed: _Owed) -> None:
        name = owed.artifact.name
        if self._is_owed(of, owed):
            del self._owed[of][name]
            if not self._owed[of]:
                del self._owed[of]
            self._to_forget.append(owed.artifact.key)

    def _is_owed(self, of: _Of, owed: _Owed) -> bool:
        return self._owed.get(of, {}).get(owed.artifact.name) is owed

    async def _send(self, owed: _Owed) -> None:
        artifact = owed.artifact
        of = _Of(artifact.task_id, artifact.attempt)
        if owed.sent:
            log.warning(
                "artifact.sent_again",
                extra={"task_id": of.task_id, "attempt": of.attempt, "artifact": artifact.name, "sent": owed.sent},
            )
        under_way: deque[asyncio.Future[None]] = deque()
        try:
            for offset in range(0, max(artifact.size, 1), MAX_PIECE_BYTES):
                if len(under_way) == MOST_UNDER_WAY:
                    await under_way.popleft()
                if not self._is_owed(of, owed):
                    return
                data = await asyncio.to_thread(self._spool.read, artifact, offset, MAX_PIECE_BYTES)
                under_way.append(self._reporter.post(PROGRESS, self._message(artifact, offset, data)))
            while under_way:
                await under_way.popleft()
        finally:
            for sent in under_way:
                sent.cancel()
        owed.sent += 1
        pause = exponential(owed.sent, base=self._resend_after, cap=max(LONGEST_PAUSE, self._resend_after))
        owed.again_at = self._clock.monotonic() + pause.total_seconds()

    def _message(self, artifact: Artifact, offset: int, data: bytes) -> WorkStatusEnvelope:
        piece = ArtifactPiece(
            name=artifact.name,
            type=artifact.type,
            sha256=artifact.sha256,
            size=artifact.size,
            offset=offset,
            data=base64.b64encode(data).decode(),
        )
        return WorkStatusEnvelope(
            from_agent=str(self._agent_id),
            to_agent=ORCHESTRATOR,
            trace_id=artifact.trace_id,
            request_id=artifact.request_id,
            payload=WorkStatus(
                task_id=artifact.task_id, agent_id=self._agent_id, attempt=artifact.attempt, pieces=[piece]
            ),
        )
