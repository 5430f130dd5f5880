"""Build the objects of an agent, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from agents.agent import Agent
from agents.attempts import Attempts
from agents.availability import Availability
from agents.capacity import Capacity
from agents.claimer import Claimer
from agents.clock_watch import ClockWatch
from agents.control import ControlListener
from agents.ears import Ears
from agents.executors.base import Executor
from agents.executors.enforcement import Enforcement
from agents.given import GivenWork
from agents.handover import Handover
from agents.hearing import MISSED_BEATS, Hearing
from agents.heartbeat import Heartbeat
from agents.intake import Intake
from agents.journal import Journal
from agents.journal_file import JournalFile
from agents.leftovers import unended, used_claims
from agents.life import Fate, fate_of
from agents.own_tickets import OwnTickets
from agents.processes.deadlines import Deadlines
from agents.processes.keepers import Keepers
from agents.progress_file import ProgressFiles
from agents.recovery import LateRecovery, recover
from agents.registration import CopyOfRunningAgent, Identity, StateUnusable
from agents.renew import LeaseRenewer
from agents.reporter import Reporter
from agents.resources import ResourceMonitor
from agents.runner import Runner
from agents.secrets.resolve import Secrets
from agents.settings import AgentSettings
from agents.signature_check import SignatureCheck, own_claim
from agents.slots import Slots
from agents.spool import Spool
from agents.spool_lines import Key
from agents.standing_claimer import StandingClaimer
from agents.trust import Trust
from agents.unreadable import Undertaker
from agents.used_claims import UsedClaims
from agents.workspace import Workspaces
from agents.write_gate import OwnPolicy, WriteGate
from common.broker.base import Broker
from common.broker.topology import own_work_queue, work_queue
from common.clock import Clock, SystemClock
from common.loop import Health
from common.messages import GrantedTask
from common.redaction.values import Values

# Below the state directory.
WORKSPACES = "work"
# So long an earlier process with the same identity may be silent, whatever its settings, before it counts as gone.
LEAST_SILENCE = timedelta(seconds=30)


@asynccontextmanager
async def build_agent(
    settings: AgentSettings,
    identity: Identity,
    broker: Broker,
    executors: Mapping[str, Executor[Any]],
    trust: Trust | None,
    keepers: Keepers,
    *,
    policy: OwnPolicy | None = None,
    known_secrets: Values | None = None,
    secrets: Secrets | None = None,
    enforcement: Enforcement | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Agent]:
    """Build an agent that is ready to run. What an earlier life left running on this host is dead when this returns.

    Without `trust` it runs whatever the broker delivers. Raises `CopyOfRunningAgent` and `StateUnusable`.
    """
    clock, health, attempts, availability = clock or SystemClock(), Health(), Attempts(), Availability()
    skew = timedelta(seconds=settings.clock_skew_seconds)
    clocks = ClockWatch(availability, clock, skew=skew)
    agent_id = identity.agent_id
    kill_grace = timedelta(seconds=settings.kill_grace_seconds)
    heartbeat_every = timedelta(seconds=settings.heartbeat_seconds)
    hearing = Hearing(every=heartbeat_every, give_up_after=timedelta(seconds=settings.deaf_exit_seconds) or None)
    resources, deadlines = ResourceMonitor(keepers), Deadlines()
    workspaces = Workspaces(settings.state_dir / WORKSPACES, keep=settings.keep_workspaces)
    async with AsyncExitStack() as stack:
        heartbeat = Heartbeat(
            broker,
            identity,
            attempts,
            resources,
            availability,
            hearing,
            clock,
            trust,
            clocks,
            every=heartbeat_every,
            health=health,
        )
        signatures = SignatureCheck(
            trust,
            agent_id,
            clock,
            skew=skew,
            claim_of=_claims_of(settings, broker),
            ask_for_keys=heartbeat.beat_soon,
        )
        leases = LeaseRenewer(broker, agent_id, attempts, clock, deadlines=deadlines, kill_grace=kill_grace)
        reporter = await stack.enter_async_context(Reporter(broker, agent_id))
        capacity = Capacity(settings.slots)
        standing = StandingClaimer(broker, agent_id, identity.agent_type, capacity, availability, clock, health=health)
        journal, handover, left, late_recovery, used = await _open_state(
            stack, settings, identity, reporter, clock, health, hearing, availability
        )
        runner = Runner(
            agent_id,
            gate=WriteGate(
                executors,
                agent_type=identity.agent_type,
                journal=journal,
                signatures=signatures,
                used=used,
                policy=policy,
            ),
            workspaces=workspaces,
            progress_files=stack.enter_context(ProgressFiles()),
            reporter=reporter,
            handover=handover,
            journal=journal,
            attempts=attempts,
            keepers=keepers,
            deadlines=deadlines,
            clock=clock,
            env_allow=settings.env_allow,
            kill_grace=kill_grace,
            known_secrets=known_secrets,
            secrets=secrets,
            enforcement=enforcement,
            output_per_second=settings.output_bytes_per_second,
        )
        given = GivenWork(runner.run, capacity, availability, attempts)
        claimer = await stack.enter_async_context(
            Claimer(
                broker,
                agent_id,
                attempts,
                clock,
                availability,
                signatures,
                standing,
                given,
                timeout=timedelta(seconds=settings.claim_timeout_seconds),
            )
        )
        undertaker = Undertaker(broker, agent_id)
        own_tickets = (
            None
            if settings.server_url
            else OwnTickets(broker, own_work_queue(agent_id), availability, health, undertaker)
        )
        intake = Intake(
            broker=broker,
            agent_id=agent_id,
            queue=work_queue(identity.agent_type),
            work_types=frozenset(executors),
            claimer=claimer,
            reporter=reporter,
            run=runner.run,
            availability=availability,
            undertaker=undertaker,
            ticket_hold=timedelta(seconds=settings.ticket_hold_seconds),
            capacity=capacity,
        )
        yield Agent(
            # A job over HTTP is claimed for one slot.
            slots=Slots(
                settings.slots,
                intake,
                own_tickets=own_tickets,
                most_in_a_lane=1 if settings.server_url else settings.slots,
                given=given,
            ),
            own_tickets=own_tickets,
            control=ControlListener(
                broker,
                agent_id,
                claimer=claimer,
                standing=standing,
                leases=leases,
                attempts=attempts,
                handover=handover,
                hearing=hearing,
                availability=availability,
                undertaker=undertaker,
                trust=trust,
                used=used,
                clock=clock,
                clocks=clocks,
                health=health,
                kill_grace=kill_grace,
                started_at=identity.started_at,
                boot_id=identity.boot_id,
            ),
            standing=standing,
            leases=leases,
            heartbeat=heartbeat,
            ears=Ears(broker, hearing, availability, clock, every=heartbeat_every, health=health),
            resources=resources,
            workspaces=workspaces,
            attempts=attempts,
            handover=handover,
            availability=availability,
            hearing=hearing,
            left=left,
            late_recovery=late_recovery,
            stop_grace=timedelta(seconds=settings.stop_grace_seconds),
            kill_grace=kill_grace,
        )


def _claims_of(settings: AgentSettings, broker: Broker) -> Callable[[GrantedTask], UUID | None]:
    """Return how to find the claim that a grant answers."""
    if settings.server_url is None:
        return own_claim
    from agents.over_http.broker import OverHttp  # with an HTTP client, which others do without

    return broker.claim_of if isinstance(broker, OverHttp) else own_claim


async def _open_state(
    stack: AsyncExitStack,
    settings: AgentSettings,
    identity: Identity,
    reporter: Reporter,
    clock: Clock,
    health: Health,
    hearing: Hearing,
    availability: Availability,
) -> tuple[Journal, Handover, list[Key], LateRecovery, UsedClaims]:
    """Open the journal and the spool, and put in order what they hold.

    Return with them the results to send first, what is to be done later, and the claims that earlier lives have used.
    """
    file, spool = JournalFile(settings.state_dir / "journal.jsonl"), Spool(settings.state_dir / "spool")
    try:
        lines = await asyncio.to_thread(lambda: list(file.read()))
        spooled = await asyncio.to_thread(spool.open)
    except OSError as error:
        raise StateUnusable(settings.state_dir, error) from None
    unfinished, used = await asyncio.to_thread(lambda: (unended(lines), UsedClaims(used_claims(lines))))
    fates = {fate: [one for one in unfinished if fate_of(one.started) is fate] for fate in Fate}
    if fates[Fate.RUNS]:
        raise CopyOfRunningAgent(settings.state_dir, fates[Fate.RUNS][0].started.agent_pid)
    journal = await stack.enter_async_context(Journal(file))
    resend_after = timedelta(seconds=settings.result_resend_seconds)
    handover = await stack.enter_async_context(
        Handover(spool, reporter, clock, resend_after=resend_after, health=health)
    )
    recovering = partial(
        recover, agent_id=identity.agent_id, spooled=spooled, spool=spool, journal=journal, handover=handover
    )
    owed = await recovering(fates[Fate.OVER])
    doubtful = fates[Fate.UNKNOWN]
    handover.expect(Key(one.started.task_id, one.started.fence) for one in doubtful)
    after = max(timedelta(seconds=settings.heartbeat_seconds) * MISSED_BEATS, LEAST_SILENCE)
    late = LateRecovery(doubtful, recovering, handover, hearing, availability, after=after)
    return journal, handover, [*spooled, *owed], late, used
