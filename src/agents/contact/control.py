"""Listen to the orchestrator: renewals, what was stored and heard, and orders."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never
from uuid import UUID

from agents.attempts.owned import Attempts
from agents.contact.clock_watch import ClockWatch
from agents.contact.hearing import Hearing
from agents.gate.trust import Trust
from agents.link.listening import Listener
from agents.link.unreadable import Undertaker
from agents.tasks.availability import Availability
from agents.tasks.handover import Handover
from agents.tasks.renew import LeaseRenewer
from agents.tasks.slots import Slots
from common.broker.base import Broker
from common.broker.topology import control_queue
from common.clock import Clock
from common.loop import Health
from common.messages import CancelTask, Renewed, Stored
from common.orders import (
    ArtifactsStored,
    Drain,
    FilePiece,
    Heard,
    Leave,
    Order,
    Pause,
    Resume,
    Settle,
    StepsStored,
    TrustKeys,
)
from common.protocol import ControlEnvelope, Envelope, UnreadableMessage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Followers:
    """The parts of the agent that take orders about files and about the ends of tasks. None of them waits."""

    file_piece: Callable[[FilePiece], None]
    artifacts_stored: Callable[[ArtifactsStored], None]
    steps_stored: Callable[[StepsStored], None]
    settle: Callable[[Settle], None]


class ControlListener:
    """Reads `control.<agent_id>`. Nothing here waits for anything but the queue, so that orders are never late."""

    def __init__(
        self,
        broker: Broker,
        agent_id: UUID,
        *,
        slots: Slots,
        leases: LeaseRenewer,
        attempts: Attempts,
        handover: Handover,
        hearing: Hearing,
        availability: Availability,
        followers: Followers,
        undertaker: Undertaker,
        trust: Trust | None,
        clock: Clock,
        clocks: ClockWatch,
        health: Health,
        kill_grace: timedelta,
        started_at: datetime,
        boot_id: UUID,
    ) -> None:
        self._started_at = started_at
        self._boot_id = boot_id
        self._slots = slots
        self._leases = leases
        self._attempts = attempts
        self._handover = handover
        self._hearing = hearing
        self._availability = availability
        self._followers = followers
        self._trust = trust
        self._clock = clock
        self._clocks = clocks
        self._kill_grace = kill_grace.total_seconds()
        self._listener = Listener(
            "control", broker, control_queue(agent_id), self._obey, undertaker=undertaker, health=health
        )

    async def run(self) -> None:
        """Listen until cancelled."""
        await self._listener.run()

    def reopen(self) -> None:
        """Throw the consumer away and open a new one."""
        self._listener.reopen()

    def _obey(self, envelope: Envelope) -> None:
        if not isinstance(envelope, ControlEnvelope):
            raise UnreadableMessage(f"type: an agent's control queue takes control, not {envelope.type}")
        self._follow(envelope.payload.order, ordered_at=envelope.timestamp)

    def _follow(self, order: Order, *, ordered_at: datetime) -> None:
        match order:
            case CancelTask():
                self._cancel(order)
            case Renewed():
                self._leases.answered(order)
            case Stored():
                self._handover.stored(order.results)
            case Heard():
                self._note_heard(order, answered_at=ordered_at)
            case Pause() | Drain() | Resume() | Leave():
                self._hold_back(order, ordered_at=ordered_at)
            case TrustKeys(signatures=signatures):
                self._follow_keys(signatures)
            case FilePiece() | ArtifactsStored() | StepsStored() | Settle():
                self._pass_on(order)
            case _:
                assert_never(order)

    def _note_heard(self, heard: Heard, *, answered_at: datetime) -> None:
        is_own = self._clocks.is_awaited(heard.beat_id)
        self._hearing.heard(at=self._clock.monotonic(), is_own=is_own)
        # An answer to an earlier process counts what that one was granted.
        if is_own:
            self._slots.heard(heard.granted or 0)
        self._clocks.heard(heard.beat_id, at=answered_at)

    def _hold_back(self, order: Pause | Drain | Resume | Leave, *, ordered_at: datetime) -> None:
        """Take work or take none, as ordered. An order that names another process of this agent is for that one."""
        match order:
            case Pause():
                self._availability.pause(order.until, ordered_at=ordered_at, note=order.note)
            case Drain(started_at=started_at) if started_at != self._started_at:
                log.info("drain.of_an_earlier_process", extra={"started_at": started_at.isoformat()})
            case Drain():
                self._availability.drain(order.note)
            case Resume():
                self._availability.resume()
            case Leave() if order.boot_id == self._boot_id:
                self._availability.refuse(order.reason)
            case Leave():
                log.warning("agent.two_processes", extra={"refused": order.boot_id, "reason": order.reason})

    def _pass_on(self, order: FilePiece | ArtifactsStored | StepsStored | Settle) -> None:
        match order:
            case FilePiece():
                self._followers.file_piece(order)
            case ArtifactsStored():
                self._followers.artifacts_stored(order)
            case StepsStored():
                self._followers.steps_stored(order)
            case Settle():
                self._followers.settle(order)

    def _follow_keys(self, signatures: Sequence[str]) -> None:
        if self._trust is None:
            return
        try:
            self._trust.follow(signatures, now=self._clock.now(), skew=self._clocks.skew)
        except OSError as failure:  # the next heartbeat is answered with the same
            log.error("trust.not_kept", extra={"reason": str(failure)})  # noqa: TRY400

    def _cancel(self, order: CancelTask) -> None:
        attempt = self._attempts.cancel(order.task_id, order.attempt, grace=self._kill_grace)
        if attempt is not None:
            log.info("cancel.ordered", extra={"task_id": order.task_id, "trace_id": attempt.grant.trace_id})
        elif self._attempts.find(order.task_id, order.attempt) is None:
            log.info("cancel.not_running", extra={"task_id": order.task_id})
