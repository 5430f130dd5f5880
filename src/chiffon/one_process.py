"""Run the orchestrator and the agents inside this process, over the broker that lives in its memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agents.main import run_agent
from agents.settings import AgentSettings
from chiffon.parts import Part, Site
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from common.errors import StartupRefused
from orchestrator.main import serve
from orchestrator.settings import OrchestratorSettings


class TaskPart:
    """A part that is an asyncio task."""

    def __init__(self, name: str, ended: asyncio.Task[Any], *, may_leave: bool = False) -> None:
        self.name = name
        self.ended = ended
        self._may_leave = may_leave

    def failure(self) -> StartupRefused | None:
        reason = None if self.ended.cancelled() else self.ended.exception()
        if reason is None and self._may_leave and not self.ended.cancelled():
            return None
        if isinstance(reason, StartupRefused):
            return reason
        return StartupRefused(f"{self.name} ended" + (f": {type(reason).__name__}: {reason}" if reason else ""))


class OneProcess:
    """The mode in which every part is a task of this process; nothing survives it but the database."""

    def __init__(self) -> None:
        self._broker = MemoryBroker()
        self._shared = SharedSettings.load(broker_url="memory://")

    @asynccontextmanager
    async def orchestrator(self, site: Site) -> AsyncIterator[Part]:
        settings = OrchestratorSettings.load(
            host=site.host,
            port=site.port,
            database_url=site.database_url,
            signing_keys_dir=site.signing_keys,
            audit_checkpoints_file=site.checkpoints,
            artifacts_dir=site.artifacts,
            services_file=site.services_file,
        )
        stop = asyncio.Event()
        serving = asyncio.create_task(
            serve(settings, self._shared, broker=self._broker, stop=stop), name="orchestrator"
        )
        try:
            yield TaskPart("the orchestrator", serving)
        finally:
            stop.set()
            await asyncio.gather(serving, return_exceptions=True)

    @asynccontextmanager
    async def agents(self, site: Site) -> AsyncIterator[Sequence[Part]]:
        stop = asyncio.Event()
        parts = []
        for agent_type, name in site.agent_names:
            settings = AgentSettings.load(
                type=agent_type,
                name=name,
                slots=site.slots,
                state_dir=site.agent_state(name),
                trusted_keys=site.trusted_keys,
                compose_root=site.compose_root,
            )
            running = run_agent(settings, self._shared, broker=self._broker, stop=stop)
            parts.append(TaskPart(f"agent {name}", asyncio.create_task(running, name=name), may_leave=True))
        try:
            yield parts
        finally:
            stop.set()
            await asyncio.gather(*(part.ended for part in parts), return_exceptions=True)
