"""The life of an agent: register, work, and stop without losing anything."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta

from agents.attempts import Attempts
from agents.consumer import Slot
from agents.control import ControlListener
from agents.heartbeat import Heartbeat
from agents.renew import LeaseKeeper
from agents.resources import ResourceMonitor
from agents.stopping import StopReason
from agents.workspace import Workspaces
from common.messages import AgentStatus

log = logging.getLogger(__name__)

# How long the agent waits for its last reports to be stored once all work has ended or been killed.
REPORT_SECONDS = 10.0


class Agent:
    """Owns everything that runs in this process on behalf of the agent."""

    def __init__(
        self,
        *,
        slots: Sequence[Slot],
        control: ControlListener,
        leases: LeaseKeeper,
        heartbeat: Heartbeat,
        resources: ResourceMonitor,
        workspaces: Workspaces,
        attempts: Attempts,
        draining: asyncio.Event,
        stop_grace: timedelta,
        kill_grace: timedelta,
    ) -> None:
        self._slots = slots
        self._control = control
        self._leases = leases
        self._heartbeat = heartbeat
        self._resources = resources
        self._workspaces = workspaces
        self._attempts = attempts
        self._draining = draining
        self._stop_grace = stop_grace.total_seconds()
        self._kill_grace = kill_grace.total_seconds()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then take nothing new, finish or hand back what runs, and say goodbye."""
        await asyncio.to_thread(self._workspaces.remove_leftovers)
        async with asyncio.TaskGroup() as group:
            services = [
                group.create_task(self._control.run(), name="control"),
                group.create_task(self._leases.run(), name="leases"),
                group.create_task(self._heartbeat.run(), name="heartbeat"),
                group.create_task(self._resources.watch_gpu(), name="gpu"),
            ]
            slots = {slot: group.create_task(slot.run(), name=f"slot {n}") for n, slot in enumerate(self._slots)}
            await stop.wait()
            await self._drain(slots)
            for service in services:
                service.cancel()
        await self._heartbeat.beat(AgentStatus.OFFLINE)
        log.info("agent.stopped")

    async def _drain(self, slots: Mapping[Slot, asyncio.Task[None]]) -> None:
        log.info("agent.draining", extra={"running": len(self._attempts), "grace": self._stop_grace})
        self._draining.set()
        self._heartbeat.beat_soon()
        for slot, task in slots.items():
            if slot.is_idle:
                task.cancel()
        _, busy = await asyncio.wait(slots.values(), timeout=self._stop_grace)
        if busy:
            self._attempts.stop_all(StopReason.AGENT_STOPPING, grace=self._kill_grace)
            _, busy = await asyncio.wait(busy, timeout=self._kill_grace + REPORT_SECONDS)
        for task in busy:
            # The lease will end by itself, and the orchestrator decides what becomes of the task.
            log.error("agent.unreported", extra={"slot": task.get_name()})
            task.cancel()
