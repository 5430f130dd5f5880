"""The life of an agent: register, work, and leave without losing anything."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from agents.artifacts.sender import ArtifactSender
from agents.attempts.owned import Attempts
from agents.attempts.stopping import StopReason
from agents.attempts.workspace import Workspaces
from agents.contact.clock_watch import ClockWatch
from agents.contact.control import ControlListener
from agents.contact.ears import AgentDeaf, Ears
from agents.contact.hearing import Hearing
from agents.contact.heartbeat import Heartbeat
from agents.contact.resources import ResourceMonitor
from agents.disk.spool_lines import Key
from agents.identity.registration import AgentRefused
from agents.recovery import LateRecovery
from agents.repairs.settler import Settler
from agents.tasks.availability import Availability
from agents.tasks.handover import Handover
from agents.tasks.intake import Intake
from agents.tasks.renew import LeaseRenewer
from agents.tasks.slots import Slots
from common.messages import AgentStatus

log = logging.getLogger(__name__)

# How long an agent that leaves waits for work that is on its way to it. What comes later waits for its lease to end.
GRANTED_SECONDS = 3.0
# How long the agent waits for its last reports to reach the broker once all work has ended or been killed.
REPORT_SECONDS = 10.0
# How long it then waits to hear that they are stored. What is not stays on disk for the next start.
STORED_SECONDS = 5.0
# How long work that owns its end may take for it when the agent leaves. What has not ended then, the next start ends.
LASTING_SECONDS = 600.0
# Every change rings; this only bounds what a mistake here could cost.
LOOK = timedelta(seconds=1)


class Agent:
    """Owns everything that runs in this process on behalf of the agent.

    `left`: results of an earlier life. `late_recovery` is for attempts of one that may still run elsewhere. `lasting`
    says how many attempts run that own their end.
    """

    def __init__(
        self,
        *,
        intake: Intake,
        control: ControlListener,
        leases: LeaseRenewer,
        heartbeat: Heartbeat,
        slots: Slots,
        clocks: ClockWatch,
        ears: Ears,
        resources: ResourceMonitor,
        workspaces: Workspaces,
        attempts: Attempts,
        handover: Handover,
        artifacts: ArtifactSender,
        settler: Settler,
        lasting: Callable[[], int],
        availability: Availability,
        hearing: Hearing,
        left: Sequence[Key],
        late_recovery: LateRecovery,
        stop_grace: timedelta,
        kill_grace: timedelta,
    ) -> None:
        self._intake = intake
        self._control = control
        self._leases = leases
        self._heartbeat = heartbeat
        self._slots = slots
        self._clocks = clocks
        self._ears = ears
        self._resources = resources
        self._workspaces = workspaces
        self._attempts = attempts
        self._handover = handover
        self._artifacts = artifacts
        self._settler = settler
        self._lasting = lasting
        self._availability = availability
        self._hearing = hearing
        self._left = left
        self._late_recovery = late_recovery
        self._stop_grace = stop_grace.total_seconds()
        self._kill_grace = kill_grace.total_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set or a drain is done; then finish or hand back what runs, and say goodbye.

        Raises `AgentDeaf` when it left because it hears nothing, and `AgentRefused` when another process has its
        identity.
        """
        await asyncio.to_thread(self._workspaces.remove_leftovers)
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(stop.wait(), name="stop")
            sending = group.create_task(self._handover.send_left(self._left), name="left results")
            services: list[asyncio.Task[Any]] = [
                stopping,
                sending,
                group.create_task(self._control.run(), name="control"),
                group.create_task(self._leases.run(), name="leases"),
                group.create_task(self._heartbeat.run(), name="heartbeat"),
                group.create_task(self._ears.run(self._control.reopen, self._intake.reopen), name="ears"),
                group.create_task(self._handover.run(), name="handover"),
                group.create_task(self._artifacts.run(), name="artifacts"),
                group.create_task(self._settler.run(), name="settler"),
                group.create_task(self._resources.watch_gpu(), name="gpu"),
                group.create_task(self._late_recovery.run(), name="late recovery"),
            ]
            # Before anything new: tasks, and those behind them, wait for these.
            await asyncio.wait({stopping, sending}, return_when=asyncio.FIRST_COMPLETED)
            # What waits in the queue may be for another process with this identity, which then refuses this one.
            registered = group.create_task(self._hearing.answered(), name="registration")
            services.append(registered)
            await asyncio.wait({stopping, registered}, return_when=asyncio.FIRST_COMPLETED)
            services.append(group.create_task(self._intake.run(), name="intake"))
            self._slots.open()
            self._heartbeat.beat_soon()
            await self._until_leaving(stopping)
            await self._leave()
            for service in services:
                service.cancel()
        await self._heartbeat.beat(AgentStatus.OFFLINE)
        log.info("agent.stopped")
        if self._availability.refusal is not None:
            raise AgentRefused(self._availability.refusal)
        if self._ears.gave_up:
            raise AgentDeaf

    async def _until_leaving(self, stopping: asyncio.Task[bool]) -> None:
        """Return when told to stop, when a drain is done, or when there is no use in going on."""
        was_open, was_leaving = True, False
        while not stopping.done() and not self._ears.gave_up:
            if self._availability.refusal is not None:
                return
            if self._availability.is_drained and self._intake.is_idle:
                log.info("agent.drained")
                return
            is_open, is_leaving = self._availability.is_open, self._availability.is_leaving
            # Who takes work again asks for it.
            if is_leaving is not was_leaving or (is_open and not was_open):
                self._heartbeat.beat_soon()
            was_open, was_leaving = is_open, is_leaving
            changed = asyncio.ensure_future(self._availability.changed.wait(LOOK))
            try:
                await asyncio.wait({changed, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
                await asyncio.gather(changed, return_exceptions=True)

    async def _receive_last(self) -> None:
        """Say that the agent leaves, and wait for what was granted before the orchestrator knew: it goes back."""
        leaving = await self._heartbeat.beat(self._heartbeat.status())
        if leaving is None or not self._hearing.has_heard or self._hearing.is_deaf:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(GRANTED_SECONDS):
                while self._clocks.is_awaited(leaving) or self._slots.is_more_granted:
                    await self._slots.news.rung()

    async def _leave(self) -> None:
        log.info("agent.leaving", extra={"running": len(self._attempts), "grace": self._stop_grace})
        self._availability.stop()
        await asyncio.gather(self._end_work(), self._settler.leave(within=LASTING_SECONDS))
        are_stored, files_are_stored = await asyncio.gather(
            self._handover.settled(within=STORED_SECONDS), self._artifacts.settled(within=STORED_SECONDS)
        )
        if not are_stored:
            log.warning("agent.results_not_stored", extra={"results": len(self._handover)})
        if not files_are_stored:
            log.warning("agent.files_not_stored", extra={"files": len(self._artifacts)})

    async def _end_work(self) -> None:
        await self._receive_last()
        if not await self._intake.ended(within=self._stop_grace):
            self._attempts.stop_all(StopReason.AGENT_STOPPING, grace=self._kill_grace)
            within = self._kill_grace + REPORT_SECONDS
            if not await self._intake.ended(within=within) and not await self._lasting_ended():
                # Results wait on disk, or leases end by themselves; the orchestrator decides what becomes of the tasks.
                log.error("agent.unreported", extra={"running": len(self._attempts)})
                await self._intake.stop()

    async def _lasting_ended(self) -> bool:
        """Wait for work that owns its end; False when something else is left, too, or it takes too long."""
        if not self._lasting():
            return False
        log.info("agent.awaits_ends", extra={"running": self._lasting(), "within": LASTING_SECONDS})
        over_at = asyncio.get_running_loop().time() + LASTING_SECONDS
        while self._lasting() and asyncio.get_running_loop().time() < over_at:
            if await self._intake.ended(within=LOOK.total_seconds()):
                return True
        return await self._intake.ended(within=REPORT_SECONDS)
