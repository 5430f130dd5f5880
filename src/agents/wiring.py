"""Build the objects of an agent, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from agents.agent import Agent
from agents.attempts import Attempts
from agents.claimer import Claimer
from agents.consumer import Intake, Slot
from agents.control import ControlListener
from agents.executors.base import Executor
from agents.heartbeat import Heartbeat
from agents.registration import Identity
from agents.renew import LeaseKeeper
from agents.reporter import Reporter
from agents.resources import ResourceMonitor
from agents.runner import Runner
from agents.settings import AgentSettings
from agents.workspace import Workspaces
from common.broker.base import Broker
from common.broker.topology import work_queue
from common.clock import SystemClock
from common.loop import Health


@asynccontextmanager
async def build_agent(
    settings: AgentSettings, identity: Identity, broker: Broker, executors: Mapping[str, Executor]
) -> AsyncIterator[Agent]:
    """Build an agent that is ready to run."""
    clock, health, attempts, draining = SystemClock(), Health(), Attempts(), asyncio.Event()
    agent_id = identity.agent_id
    kill_grace = timedelta(seconds=settings.kill_grace_seconds)
    resources = ResourceMonitor()
    workspaces = Workspaces(settings.state_dir / "work", keep=settings.keep_workspaces)
    leases = LeaseKeeper(broker, agent_id, attempts, clock, kill_grace=kill_grace)
    async with (
        Reporter(broker, agent_id) as reporter,
        Claimer(
            broker, agent_id, attempts, clock, draining, timeout=timedelta(seconds=settings.claim_timeout_seconds)
        ) as claimer,
    ):
        runner = Runner(
            agent_id,
            executors=executors,
            workspaces=workspaces,
            reporter=reporter,
            attempts=attempts,
            clock=clock,
            env_allow=settings.env_allow,
            kill_grace=kill_grace,
        )
        intake = Intake(
            broker=broker,
            agent_id=agent_id,
            queue=work_queue(identity.agent_type),
            work_types=frozenset(executors),
            claimer=claimer,
            reporter=reporter,
            run=runner.run,
            draining=draining,
            ticket_hold=timedelta(seconds=settings.ticket_hold_seconds),
        )
        yield Agent(
            slots=[Slot(number, intake) for number in range(settings.slots)],
            control=ControlListener(
                broker,
                agent_id,
                claimer=claimer,
                leases=leases,
                attempts=attempts,
                reporter=reporter,
                health=health,
                kill_grace=kill_grace,
            ),
            leases=leases,
            heartbeat=Heartbeat(
                broker,
                identity,
                attempts,
                resources,
                draining,
                every=timedelta(seconds=settings.heartbeat_seconds),
                health=health,
            ),
            resources=resources,
            workspaces=workspaces,
            attempts=attempts,
            draining=draining,
            stop_grace=timedelta(seconds=settings.stop_grace_seconds),
            kill_grace=kill_grace,
        )
