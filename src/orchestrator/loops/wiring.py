"""Build the loops that need more than their services, and run those that read a queue."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.broker.base import Broker, BrokerUnavailable
from common.errors import StartupRefused
from common.loop import Health, Wake, keep_running
from orchestrator.database.pool import Pool
from orchestrator.dispatch.service import DispatchService
from orchestrator.dispatch.standing import StandingClaims
from orchestrator.dispatch.withdrawals import Withdrawals
from orchestrator.events.own import OwnEvents
from orchestrator.leases.service import LeaseService
from orchestrator.loops.consume import ConsumeQueue
from orchestrator.loops.consume_claims import ConsumeClaims
from orchestrator.loops.consume_dead_letters import ConsumeDeadLetters
from orchestrator.loops.place_tickets import PlaceTickets
from orchestrator.loops.recover import Recover, RecoverAfterOutages
from orchestrator.loops.relay_outbox import RelayOutbox
from orchestrator.loops.send_new import SendNew
from orchestrator.loops.serve_standing import ServeStanding
from orchestrator.outbox.room import Room
from orchestrator.registry.offering import Offering
from orchestrator.settings import OrchestratorSettings
from orchestrator.signing.signer import Signer
from orchestrator.tasks.service import TaskService


def relaying(
    settings: OrchestratorSettings, pool: Pool, broker: Broker, pools: Sequence[str], room: Room, offering: Offering
) -> RelayOutbox:
    """Return the loop that publishes tickets and orders."""
    return RelayOutbox(
        pool,
        broker,
        agent_types=pools,
        window=settings.ticket_window,
        ttl=settings.ticket_ttl,
        ageing=settings.priority_ageing,
        room=room,
        offering=offering,
    )


@dataclass(frozen=True, slots=True)
class Dispatching:
    """How new work enters and goes: what stores it, sends it, and gives it to agents that claimed in advance."""

    service: DispatchService
    send: SendNew
    serve: ServeStanding
    claims: ConsumeClaims


def dispatching(
    settings: OrchestratorSettings,
    pool: Pool,
    broker: Broker,
    signer: Signer | None,
    *,
    tasks: TaskService,
    leases: LeaseService,
    tickets: RelayOutbox,
    room: Room,
    relay: Wake,
    own: OwnEvents,
) -> Dispatching:
    """Return everything that knows of claims in advance."""
    standing = StandingClaims(most=settings.standing_claims)
    lease, most_output = settings.lease, settings.max_output_bytes
    return Dispatching(
        service=DispatchService(
            pool,
            tasks,
            standing,
            room,
            leases.given,
            own,
            lease=lease,
            ageing=settings.priority_ageing,
            ttl=settings.ticket_ttl,
            max_output_bytes=most_output,
        ),
        send=SendNew(tickets, leases, broker, signer, most_standing=standing.most),
        serve=ServeStanding(pool, leases, standing, broker, signer),
        claims=ConsumeClaims(
            leases,
            standing,
            Withdrawals(pool, lease=lease, max_output_bytes=most_output),
            broker,
            signer,
            room=room,
            relay=relay,
        ),
    )


def placing(settings: OrchestratorSettings, pool: Pool, broker: Broker, room: Room, offering: Offering) -> PlaceTickets:
    """Return the loop that sends work which not every agent may take to one that may."""
    return PlaceTickets(
        pool,
        broker,
        offline_after=settings.agent_offline_after,
        ttl=settings.ticket_ttl,
        ageing=settings.priority_ageing,
        room=room,
        offering=offering,
    )


async def consuming(consumer: ConsumeQueue | ConsumeDeadLetters, health: Health) -> None:
    """Read a queue until cancelled."""
    async with consumer:
        await keep_running(f"consume_{consumer.queue}", consumer.run_once, health=health)


async def recover(
    settings: OrchestratorSettings, pool: Pool, broker: Broker, pools: Sequence[str], relay: Wake
) -> RecoverAfterOutages:
    """Make ledger and broker agree before anything is served, and return the loop that does so after outages.

    Raises `StartupRefused` without the broker.
    """
    mending = Recover(pool, broker, agent_types=pools)
    later = RecoverAfterOutages(mending, broker, pool.database, relay)
    try:
        await mending.run_once()
    except BrokerUnavailable as error:
        raise StartupRefused(f"The broker went away while starting: {error}") from error
    return later
