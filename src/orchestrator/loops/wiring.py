"""Build the loops that need more than their services, and run those that read a queue."""

from dataclasses import dataclass

from common.broker.base import Broker
from common.loop import Health, keep_running
from orchestrator.database.pool import Pool
from orchestrator.dispatch.service import DispatchService
from orchestrator.events.own import OwnEvents
from orchestrator.leases.credits import Credits
from orchestrator.leases.giving import Giving
from orchestrator.leases.service import LeaseService
from orchestrator.loops.consume import ConsumeQueue
from orchestrator.loops.consume_dead_letters import ConsumeDeadLetters
from orchestrator.loops.give_work import GiveWork
from orchestrator.loops.send_work import SendWork
from orchestrator.registry.rules import BreakerPolicy
from orchestrator.settings import OrchestratorSettings
from orchestrator.signing.signer import Signer
from orchestrator.tasks.service import TaskService


@dataclass(frozen=True, slots=True)
class Dispatching:
    """How new work enters and goes: what stores it, what leases the rest, and what sends both."""

    service: DispatchService
    giving: Giving
    give: GiveWork
    send: SendWork


def dispatching(
    settings: OrchestratorSettings,
    pool: Pool,
    broker: Broker,
    signer: Signer | None,
    *,
    tasks: TaskService,
    leases: LeaseService,
    credits: Credits,
    own: OwnEvents,
) -> Dispatching:
    """Return everything that gives work to agents."""
    send = SendWork(leases, broker, signer, max_output_bytes=settings.max_output_bytes)
    giving = Giving(
        pool,
        credits,
        own,
        lease=settings.lease,
        breaker=BreakerPolicy(settings.breaker_failures, settings.breaker_pause),
        offline_after=settings.agent_offline_after,
    )
    service = DispatchService(
        pool, tasks, credits, leases.given, own, lease=settings.lease, ageing=settings.priority_ageing
    )
    return Dispatching(service, giving, GiveWork(pool, giving, leases, send), send)


async def consuming(consumer: ConsumeQueue | ConsumeDeadLetters, health: Health) -> None:
    """Read a queue until cancelled."""
    async with consumer:
        await keep_running(f"consume_{consumer.queue}", consumer.run_once, health=health)
