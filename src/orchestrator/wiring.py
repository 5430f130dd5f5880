"""Builds the orchestrator: the one place that knows how its parts fit together."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import uuid4

from common.broker.base import Broker, BrokerUnavailable
from common.broker.connect import open_broker
from common.clock import SystemClock
from common.config import SharedSettings
from common.errors import StartupRefused
from common.loop import Duty, Health, Wake, forever, keep_running
from common.retry import RetryPolicy
from orchestrator.database.migrate import HEAD, current_version
from orchestrator.database.pool import Pool, open_pool, ping
from orchestrator.events import queries as events
from orchestrator.events.service import EventService
from orchestrator.leases.service import LeaseService
from orchestrator.live.feed import FollowEvents, listen_for_events
from orchestrator.live.hub import Hub
from orchestrator.loops.consume import ConsumeQueue, Handler
from orchestrator.loops.consume_claims import ConsumeClaims
from orchestrator.loops.consume_heartbeats import ConsumeHeartbeats
from orchestrator.loops.consume_progress import ConsumeProgress
from orchestrator.loops.consume_results import ConsumeResults
from orchestrator.loops.probe import SendProbe
from orchestrator.loops.reap_leases import ReapLeases
from orchestrator.loops.recover import Recover
from orchestrator.loops.relay_outbox import RelayOutbox
from orchestrator.loops.watch_agents import WatchAgents
from orchestrator.output.service import OutputService
from orchestrator.probes.service import ProbeService
from orchestrator.registry.service import RegistryService
from orchestrator.service import OrchestratorService
from orchestrator.settings import OrchestratorSettings
from orchestrator.tasks.service import TaskService

log = logging.getLogger(__name__)

SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Live:
    """What the WebSockets need."""

    pool: Pool
    hub: Hub


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """An orchestrator that runs."""

    service: OrchestratorService
    live: Live
    checks: Mapping[str, Callable[[], Awaitable[str]]]


@asynccontextmanager
async def open_orchestrator(
    settings: OrchestratorSettings, shared: SharedSettings, *, broker: Broker | None = None
) -> AsyncIterator[Orchestrator]:
    """Connect to everything, start every loop, and stop them at the end.

    Raises `StartupRefused` when the database, its schema or the broker are not as they must be.
    """
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(settings.database_url, connections=settings.database_connections)
        )
        await _check_schema(settings.database_url)
        bus = broker or await _open_broker(stack, shared.broker_url)
        relay, news, health, hub = Wake(), Wake(), Health(), Hub()
        tasks = TaskService(pool, ageing=settings.priority_ageing)
        output = OutputService(pool)
        registry = RegistryService(pool, offline_after=settings.agent_offline_after)
        leases = LeaseService(pool, lease=settings.lease, ageing=settings.priority_ageing, policy=RetryPolicy())
        service = OrchestratorService(
            settings,
            bus,
            tasks=tasks,
            output=output,
            events=EventService(pool),
            registry=registry,
            leases=leases,
            relay=relay,
        )
        probes = ProbeService(pool, uuid4())
        await _connect(service)
        stack.push_async_callback(service.disconnect)
        await _recover(settings, pool, bus)
        async with pool.acquire() as db:
            hub.start_at(await events.head(db))
        handlers: list[Handler] = [
            ConsumeClaims(leases, bus, relay),
            ConsumeResults(leases, probes, bus, relay),
            ConsumeProgress(output, leases, bus, relay),
            ConsumeHeartbeats(registry, leases, bus),
        ]
        consumers = [ConsumeQueue(bus, handler) for handler in handlers]
        probe = SendProbe(probes, bus, every=settings.probe, consumers=consumers)
        duties: list[tuple[str, Duty, Wake, timedelta]] = [
            ("relay_outbox", _relay(settings, pool, bus), relay, SECOND),
            ("reap_leases", ReapLeases(leases, bus, relay, SystemClock(), grace=settings.lease), Wake(), SECOND),
            ("send_probe", probe, Wake(), settings.probe),
            ("watch_agents", WatchAgents(registry), Wake(), SECOND),
            ("follow_events", FollowEvents(pool, hub), news, SECOND),
        ]
        loops = {
            "listen_for_events": keep_running(
                "listen_for_events", partial(listen_for_events, settings.database_url, news), health=health
            ),
            **{name: forever(name, duty, wake=wake, every=every, health=health) for name, duty, wake, every in duties},
            **{f"consume_{consumer.queue}": _consume(consumer, health) for consumer in consumers},
        }
        await stack.enter_async_context(_running(loops))
        yield Orchestrator(service, Live(pool, hub), _checks(settings, pool, bus, probe, health))


def _relay(settings: OrchestratorSettings, pool: Pool, broker: Broker) -> RelayOutbox:
    return RelayOutbox(
        pool,
        broker,
        agent_types=settings.agent_types,
        window=settings.ticket_window,
        ttl=settings.ticket_ttl,
    )


async def _consume(consumer: ConsumeQueue, health: Health) -> None:
    async with consumer:
        await keep_running(f"consume_{consumer.queue}", consumer.run_once, health=health)


async def _recover(settings: OrchestratorSettings, pool: Pool, broker: Broker) -> None:
    recover = Recover(pool, broker, agent_types=settings.agent_types, ageing=settings.priority_ageing)
    try:
        await recover.run_once()
    except BrokerUnavailable as error:
        raise StartupRefused(f"The broker went away while starting: {error}") from error


@asynccontextmanager
async def _running(loops: Mapping[str, Coroutine[None, None, None]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(loop, name=name) for name, loop in loops.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _check_schema(database_url: str) -> None:
    version = await current_version(database_url)
    if version != HEAD:
        raise StartupRefused(
            f"The database's schema is at version {version or 'none'}, this program needs {HEAD}. "
            "Run `chiffon db upgrade`."
        )


async def _open_broker(stack: AsyncExitStack, url: str) -> Broker:
    try:
        return await stack.enter_async_context(open_broker(url, name="orchestrator"))
    except BrokerUnavailable as error:
        raise StartupRefused(f"The broker cannot be used: {error} Is CHIFFON_BROKER_URL right?") from error


async def _connect(service: OrchestratorService) -> None:
    try:
        await service.connect()
    except BrokerUnavailable as error:
        raise StartupRefused(f"The broker does not let the queues be declared: {error}") from error


def _checks(
    settings: OrchestratorSettings, pool: Pool, broker: Broker, probe: SendProbe, health: Health
) -> Mapping[str, Callable[[], Awaitable[str]]]:
    async def check_broker() -> str:
        await broker.check()
        return ""

    async def check_database() -> str:
        await ping(pool, seconds=5)
        return ""

    async def check_schema() -> str:
        await _check_schema(settings.database_url)
        return HEAD

    async def check_loops() -> str:
        failures = {name: failure for name, failure in health.failures().items() if failure is not None}
        if failures:
            raise RuntimeError("; ".join(f"{name}: {failure}" for name, failure in failures.items()))
        return ", ".join(sorted(health.failures()))

    return {
        "broker": check_broker,
        "database": check_database,
        "schema": check_schema,
        "loops": check_loops,
        "probe": probe.check,
    }
