"""Builds the orchestrator: the one place that knows how its parts fit together."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable
from common.broker.connect import open_broker
from common.clock import SystemClock
from common.config import SharedSettings
from common.errors import StartupRefused
from common.loop import Duty, Health, InTurn, Wake, forever, keep_running
from common.orders import ArtifactsStored
from common.retry import RetryPolicy
from orchestrator.approvals.service import ApprovalService
from orchestrator.artifacts.links import LinkKeeper
from orchestrator.artifacts.parts import Artifacts, open_artifacts
from orchestrator.artifacts.rules import Limits
from orchestrator.artifacts.service import ArtifactService
from orchestrator.audit.service import AuditService
from orchestrator.database.pool import Pool, open_pool
from orchestrator.dead_letters.service import DeadLetterService
from orchestrator.dispatch.service import DispatchService
from orchestrator.events import queries as events
from orchestrator.events.service import EventService
from orchestrator.fan_outs.service import FanOutService
from orchestrator.identities.door import Keeper
from orchestrator.identities.door_keeping import Identities, build_identities, keep_door
from orchestrator.jobs import queries as job_queries
from orchestrator.jobs.claims import Claims
from orchestrator.jobs.rules import HTTP_POOL
from orchestrator.jobs.service import JobService
from orchestrator.jobs.workers import Workers
from orchestrator.keys.service import KeyService
from orchestrator.leases.credits import Credits
from orchestrator.leases.giving import Giving
from orchestrator.leases.service import LeaseService
from orchestrator.live.feed import FollowEvents, News, listen_for_events
from orchestrator.live.hub import Hub
from orchestrator.loops.advance_runs import AdvanceRuns
from orchestrator.loops.bring_files import BringFiles
from orchestrator.loops.consume import ConsumeQueue, Handler
from orchestrator.loops.consume_dead_letters import ConsumeDeadLetters
from orchestrator.loops.consume_heartbeats import ConsumeHeartbeats
from orchestrator.loops.consume_progress import ConsumeProgress
from orchestrator.loops.consume_results import ConsumeResults
from orchestrator.loops.expire_approvals import ExpireApprovals
from orchestrator.loops.expire_tasks import ExpireTasks
from orchestrator.loops.free_keys import FreeKeys
from orchestrator.loops.give_work import GiveWork
from orchestrator.loops.probe import SendProbe
from orchestrator.loops.read_keys import ReadKeys
from orchestrator.loops.reap_leases import ReapLeases
from orchestrator.loops.recover import RecoverAfterOutages, log_leases
from orchestrator.loops.run import running
from orchestrator.loops.send_orders import SendOrders
from orchestrator.loops.send_work import SendWork
from orchestrator.loops.senders import senders_of
from orchestrator.loops.tell import tell
from orchestrator.loops.watch_agents import WatchAgents
from orchestrator.loops.write_checkpoints import open_checkpoints
from orchestrator.metrics.report import open_metrics
from orchestrator.ops.service import OpsService
from orchestrator.output.service import OutputService
from orchestrator.policy.service import PolicyService, open_policy
from orchestrator.probes.service import ProbeService
from orchestrator.readiness import check_schema, checks, failures
from orchestrator.registry.fleet import FleetService
from orchestrator.registry.rules import BreakerPolicy
from orchestrator.registry.service import RegistryService
from orchestrator.repairs.planner import outdated
from orchestrator.repairs.profiles import open_services
from orchestrator.repairs.service import RepairService
from orchestrator.runs.open_runs import OpenRuns
from orchestrator.runs.service import RunService
from orchestrator.service import OrchestratorService
from orchestrator.settings import OrchestratorSettings
from orchestrator.signing.signer import Signer, open_signer
from orchestrator.steps.service import StepService
from orchestrator.tasks.control import TaskControl
from orchestrator.tasks.dispatch import asked_terms
from orchestrator.tasks.service import TaskService
from orchestrator.why.service import WhyService

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
    task_control: TaskControl
    fleet: FleetService
    fan_outs: FanOutService
    runs: RunService
    artifacts: Artifacts
    repairs: RepairService
    dead_letters: DeadLetterService
    jobs: JobService
    ops: OpsService
    live: Live
    checks: Mapping[str, Callable[[], Awaitable[str]]]
    policy: PolicyService
    approvals: ApprovalService
    keeper: Keeper
    identities: Identities
    audit: AuditService
    pools: Collection[str]
    registry: RegistryService
    routes: Mapping[str, str]


@asynccontextmanager
async def open_orchestrator(
    settings: OrchestratorSettings, shared: SharedSettings, *, broker: Broker | None = None
) -> AsyncIterator[Orchestrator]:
    """Connect to everything, start every loop, and stop them at the end.

    Raises `StartupRefused` when the database, its schema or the broker are not as they must be.
    """
    policy, services = open_policy(settings.policy_file), open_services(settings.services_file)
    log.info("policy.in_force", extra={"policy_version": policy.policy.id, "source": policy.source})
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(settings.database_url, connections=settings.database_connections)
        )
        await check_schema(pool)
        bus = broker or await _open_broker(stack, shared)
        giver, news, health, hub = Wake(), News(), Health(), Hub()
        signer = open_signer(settings.signing_keys_dir, SystemClock(), is_required=settings.signatures == "required")
        audit = AuditService(pool)
        checkpoints = open_checkpoints(settings.audit_checkpoints_file, pool, signer, SystemClock())
        credits, tasks = Credits(lambda: bus.is_connected), TaskService(pool, ageing=settings.priority_ageing)
        output, steps = OutputService(pool, max_output_bytes=settings.max_output_bytes), StepService(pool)
        artifacts = await stack.enter_async_context(_artifacts(settings, pool, bus, stored := Wake()))
        registry = RegistryService(
            pool,
            offline_after=settings.agent_offline_after,
            gone_after=settings.agent_gone_after,
            clock_skew=settings.clock_skew,
        )
        fleet = FleetService(pool, giver, offline_after=settings.agent_offline_after)
        letters = DeadLetterService(pool, bus, tasks, policy, giver)
        leases = LeaseService(
            pool,
            lease=settings.lease,
            policy=RetryPolicy(),
            breaker=BreakerPolicy(settings.breaker_failures, settings.breaker_pause),
            max_output_bytes=settings.max_output_bytes,
            credits=credits,
            giver=giver,
        )
        new = _dispatching(settings, pool, bus, signer, tasks=tasks, leases=leases, credits=credits)
        service = OrchestratorService(
            settings,
            bus,
            tasks=tasks,
            dispatch=new.service,
            output=output,
            events=EventService(pool),
            registry=registry,
            leases=leases,
            why=WhyService(pool, offline_after=settings.agent_offline_after, failures=partial(failures, bus, health)),
            policy=policy,
            giver=giver,
            send=new.send,
        )
        jobs = await _jobs(
            settings,
            pool,
            service,
            tasks,
            leases,
            new.giving,
            output,
            steps,
            artifacts.service,
            registry,
            policy,
            giver,
            signer,
        )
        approvals = ApprovalService(pool, service.work_of, asked_terms, policy.rule, giver)
        open_runs = OpenRuns()
        runs = RunService(
            pool, service, approvals, open_runs, routes=settings.routes, outdated=partial(outdated, services)
        )
        metrics = await stack.enter_async_context(open_metrics(settings, pool, SystemClock()))
        await stack.enter_async_context(jobs.results)
        probes = ProbeService(pool, uuid4())
        await _connect(service)
        stack.push_async_callback(new.send.close)
        stack.push_async_callback(service.disconnect)
        await log_leases(pool)
        await audit.started(settings, policy.policy.id, () if signer is None else signer.key_ids[0])
        async with pool.acquire() as db:
            hub.start_at(await events.head(db))
        files = BringFiles(artifacts.service, bus, SystemClock())
        handlers: list[Handler] = [
            ConsumeResults(leases, probes, letters, bus),
            ConsumeProgress(output, leases, bus, steps=steps, artifacts=artifacts.service, files=files),
            ConsumeHeartbeats(registry, leases, bus, signer, send=new.send, credits=credits),
        ]
        senders = senders_of(settings.broker_identities, None if broker else shared.broker_url, registry.known)
        consumers = [
            ConsumeQueue(bus, handler, senders=senders, well=partial(health.well, f"consume_{handler.queue}"))
            for handler in handlers
        ]
        probe = SendProbe(probes, bus, every=settings.probe, consumers=consumers)
        listeners = [jobs.desk, open_runs, *(() if metrics is None else (metrics,))]
        duties: list[tuple[str, Duty, Wake, timedelta]] = [
            ("give_work", InTurn(new.give, SendOrders(pool, bus)), giver, SECOND),
            ("reap_leases", ReapLeases(leases, bus, giver, SystemClock(), grace=settings.lease), Wake(), SECOND),
            ("send_probe", probe, Wake(), settings.probe),
            ("recover", RecoverAfterOutages(bus, pool.database, giver), Wake(), SECOND),
            ("expire_approvals", ExpireApprovals(approvals, tasks, giver), Wake(), SECOND),
            ("expire_tasks", ExpireTasks(tasks, giver), Wake(), SECOND),
            ("free_keys", FreeKeys(KeyService(pool), giver), Wake(), SECOND),
            ("watch_agents", WatchAgents(registry, leases, bus), Wake(), SECOND),
            ("follow_events", FollowEvents(pool, hub, news, listeners=listeners), news, SECOND),
            ("advance_runs", AdvanceRuns(runs, open_runs, bus, SystemClock()), open_runs.bell, SECOND),
            ("assemble_artifacts", artifacts.assembling, artifacts.wake, SECOND),
            ("bring_files", files, stored, SECOND),
        ]
        if signer is not None:
            duties.append(("read_keys", ReadKeys(signer, audit), Wake(), 2 * SECOND))
        if metrics is not None:
            duties.append(("report_metrics", metrics, metrics.bell, SECOND))
        if checkpoints is not None:
            duties.append(("write_checkpoints", checkpoints, Wake(), settings.audit_checkpoint))
        door = await stack.enter_async_context(keep_door(settings, pool, health))
        loops = {
            **door.loops,
            "listen_for_events": keep_running(
                "listen_for_events",
                partial(listen_for_events, pool.database, news, well=partial(health.well, "listen_for_events")),
                health=health,
            ),
            "answer_claims": keep_running("answer_claims", jobs.desk.run_once, health=health),
            **{name: forever(name, duty, wake=wake, every=every, health=health) for name, duty, wake, every in duties},
            **{f"consume_{consumer.queue}": _consuming(consumer, health) for consumer in consumers},
            f"consume_{topology.DEAD_LETTERS}": _consuming(
                ConsumeDeadLetters(bus, letters, well=partial(health.well, f"consume_{topology.DEAD_LETTERS}")), health
            ),
        }
        await stack.enter_async_context(running(loops))
        yield Orchestrator(
            service,
            TaskControl(tasks, policy, giver),
            fleet,
            FanOutService(pool, service, registry),
            runs,
            artifacts,
            RepairService(pool, runs, artifacts.service, services, check=partial(service.task_of, is_repair=True)),
            letters,
            jobs,
            OpsService(pool),
            Live(pool, hub),
            checks(pool, bus, probe, health, signer),
            policy,
            approvals,
            LinkKeeper(door.keeper, artifacts.links),
            build_identities(settings, pool, trusted_keys=tuple if signer is None else signer.public_keys),
            audit,
            frozenset({*settings.agent_types, HTTP_POOL}),
            registry,
            settings.routes,
        )


@dataclass(frozen=True, slots=True)
class _Dispatching:
    """How new work enters and goes: what stores it, what leases the rest, and what sends both."""

    service: DispatchService
    giving: Giving
    give: GiveWork
    send: SendWork


def _dispatching(
    settings: OrchestratorSettings,
    pool: Pool,
    broker: Broker,
    signer: Signer | None,
    *,
    tasks: TaskService,
    leases: LeaseService,
    credits: Credits,
) -> _Dispatching:
    """Return everything that gives work to agents."""
    send = SendWork(leases, broker, signer, max_output_bytes=settings.max_output_bytes)
    giving = Giving(
        pool,
        credits,
        lease=settings.lease,
        breaker=BreakerPolicy(settings.breaker_failures, settings.breaker_pause),
        offline_after=settings.agent_offline_after,
    )
    service = DispatchService(pool, tasks, credits, leases.given, lease=settings.lease, ageing=settings.priority_ageing)
    return _Dispatching(service, giving, GiveWork(pool, giving, leases, send), send)


async def _jobs(
    settings: OrchestratorSettings,
    pool: Pool,
    service: OrchestratorService,
    tasks: TaskService,
    leases: LeaseService,
    giving: Giving,
    output: OutputService,
    steps: StepService,
    artifacts: ArtifactService,
    registry: RegistryService,
    policy: PolicyService,
    giver: Wake,
    signer: Signer | None,
) -> JobService:
    async with pool.acquire() as db:
        since = await job_queries.now(db)
    claims = Claims(pool, leases, giving, since=since, grace=settings.lease)
    return JobService(
        pool,
        dispatch=service.submit,
        give=claims.give,
        tasks=tasks,
        leases=leases,
        output=output,
        steps=steps,
        artifacts=artifacts,
        workers=Workers(pool, registry),
        giver=giver,
        routes=settings.routes,
        rule=policy.rule,
        max_lease=settings.queue_max_lease,
        max_output_bytes=settings.max_output_bytes,
        signer=signer,
    )


def _artifacts(
    settings: OrchestratorSettings, pool: Pool, broker: Broker, stored: Wake
) -> AbstractAsyncContextManager[Artifacts]:
    """Put artifacts together; `stored` is rung when some are."""

    async def tell_of(answers: Sequence[tuple[UUID, ArtifactsStored]]) -> None:
        stored.ring()
        await tell(broker, answers)

    return open_artifacts(
        pool,
        settings.artifacts_dir,
        SystemClock(),
        limits=Limits(
            one=settings.max_artifact_bytes, run=settings.max_run_artifact_bytes, all=settings.max_artifacts_bytes
        ),
        links_last=settings.artifact_link,
        tell=tell_of,
        keep=settings.artifact_keep,
    )


async def _open_broker(stack: AsyncExitStack, shared: SharedSettings) -> Broker:
    try:
        return await stack.enter_async_context(
            open_broker(shared.broker_url, name="orchestrator", queue_type=shared.queue_type)
        )
    except BrokerUnavailable as error:
        raise StartupRefused(f"The broker cannot be used: {error} Is CHIFFON_BROKER_URL right?") from error


async def _connect(service: OrchestratorService) -> None:
    try:
        await service.connect()
    except BrokerUnavailable as error:
        raise StartupRefused(f"The broker does not let the queues be declared: {error}") from error


async def _consuming(consumer: ConsumeQueue | ConsumeDeadLetters, health: Health) -> None:
    """Read a queue until cancelled."""
    async with consumer:
        await keep_running(f"consume_{consumer.queue}", consumer.run_once, health=health)
