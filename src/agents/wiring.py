"""Build the objects of an agent, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from agents.agent import Agent
from agents.artifacts.keep import Files
from agents.artifacts.sender import ArtifactSender
from agents.artifacts.spool import ArtifactSpool, Owner
from agents.artifacts.wants import Wants
from agents.attempts.begun import Begun
from agents.attempts.owned import Attempts
from agents.attempts.workspace import Workspaces
from agents.contact.clock_watch import ClockWatch
from agents.contact.control import ControlListener, Followers
from agents.contact.ears import Ears
from agents.contact.hearing import MISSED_BEATS, Hearing
from agents.contact.heartbeat import Heartbeat
from agents.contact.resources import ResourceMonitor
from agents.disk.journal import Journal
from agents.disk.journal_file import JournalFile
from agents.disk.leftovers import begun, sessions, unended
from agents.disk.spool import Spool
from agents.disk.spool_lines import Key
from agents.executors.base import Executor
from agents.executors.enforcement import Enforcement
from agents.executors.environment import inherited
from agents.gate.signature_check import SignatureCheck
from agents.gate.trust import Trust
from agents.gate.write_gate import OwnPolicy, WriteGate
from agents.identity.registration import CopyOfRunningAgent, Identity, StateUnusable
from agents.link.reporter import Reporter
from agents.link.unreadable import Undertaker
from agents.output.progress_file import ProgressFiles
from agents.output.steps import status_of
from agents.processes.deadlines import Deadlines
from agents.processes.keepers import Keepers
from agents.processes.life import Fate, fate_of, host_boot_id
from agents.recovery import LateRecovery, recover
from agents.repairs.settler import Settler
from agents.repairs.store import Store
from agents.repairs.work import Keep
from agents.secrets.resolve import Secrets
from agents.settings import AgentSettings
from agents.tasks.availability import Availability
from agents.tasks.handover import Handover
from agents.tasks.intake import Asked, Intake
from agents.tasks.renew import LeaseRenewer
from agents.tasks.runner import Runner
from agents.tasks.slots import Slots
from common.broker.base import Broker
from common.broker.topology import PROGRESS, work_queue
from common.clock import Clock, SystemClock
from common.loop import Health
from common.messages import StepReport
from common.redaction.values import Values

# Below the state directory.
WORKSPACES, ARTIFACTS = "work", "artifacts"
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
    slots = Slots(settings.slots, identity.boot_id, availability, clock)
    asked = _asked(settings, slots, broker)
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
            slots,
            every=heartbeat_every,
            health=health,
        )
        signatures = SignatureCheck(
            trust,
            agent_id,
            clock,
            skew=skew,
            claim_of=asked.claim_of,
            ask_for_keys=heartbeat.beat_soon,
        )
        leases = LeaseRenewer(broker, agent_id, attempts, clock, deadlines=deadlines, kill_grace=kill_grace)
        reporter = await stack.enter_async_context(Reporter(broker, agent_id, slots.credit))
        journal, handover, left, late_recovery, already_begun = await _open_state(
            stack, settings, identity, reporter, clock, health, hearing, availability
        )
        artifacts, wants, files = await _open_files(stack, settings, identity, reporter, clock, health)
        settler = _settler(settings, identity, reporter, files, attempts, keepers, known_secrets, clock, health)
        runner = Runner(
            agent_id,
            gate=WriteGate(
                executors,
                agent_type=identity.agent_type,
                journal=journal,
                signatures=signatures,
                begun=already_begun,
                policy=policy,
            ),
            workspaces=workspaces,
            progress_files=stack.enter_context(ProgressFiles()),
            reporter=reporter,
            handover=handover,
            journal=journal,
            slots=slots,
            keepers=keepers,
            deadlines=deadlines,
            clock=clock,
            env_allow=settings.env_allow,
            kill_grace=kill_grace,
            known_secrets=known_secrets,
            secrets=secrets,
            enforcement=enforcement,
            output_per_second=settings.output_bytes_per_second,
            files=files,
        )
        undertaker = Undertaker(broker, agent_id)
        yield Agent(
            intake=Intake(
                broker,
                agent_id,
                work_queue(identity.agent_type, agent_id),
                runner.run,
                slots,
                asked,
                attempts=attempts,
                handover=handover,
                begun=already_begun,
                signatures=signatures,
                availability=availability,
                clock=clock,
                undertaker=undertaker,
                health=health,
                work_ended=heartbeat.beat_soon,
            ),
            control=ControlListener(
                broker,
                agent_id,
                slots=slots,
                leases=leases,
                attempts=attempts,
                handover=handover,
                hearing=hearing,
                availability=availability,
                followers=Followers(
                    file_piece=wants.take,
                    artifacts_stored=artifacts.stored,
                    steps_stored=settler.steps_stored,
                    settle=settler.settle,
                ),
                undertaker=undertaker,
                trust=trust,
                clock=clock,
                clocks=clocks,
                health=health,
                kill_grace=kill_grace,
                started_at=identity.started_at,
                boot_id=identity.boot_id,
            ),
            leases=leases,
            heartbeat=heartbeat,
            slots=slots,
            clocks=clocks,
            ears=Ears(broker, hearing, availability, clock, every=heartbeat_every, health=health),
            resources=resources,
            workspaces=workspaces,
            attempts=attempts,
            handover=handover,
            artifacts=artifacts,
            settler=settler,
            lasting=lambda: runner.lasting,
            availability=availability,
            hearing=hearing,
            left=left,
            late_recovery=late_recovery,
            stop_grace=timedelta(seconds=settings.stop_grace_seconds),
            kill_grace=kill_grace,
        )


def _asked(settings: AgentSettings, slots: Slots, broker: Broker) -> Asked:
    """Return what knows how this process asks for work: by its credit, or by claims over HTTP."""
    if settings.server_url is None:
        return slots
    from agents.over_http.broker import OverHttp  # with an HTTP client, which others do without

    return broker if isinstance(broker, OverHttp) else slots


def _settler(
    settings: AgentSettings,
    identity: Identity,
    reporter: Reporter,
    files: Files,
    attempts: Attempts,
    keepers: Keepers,
    known_secrets: Values | None,
    clock: Clock,
    health: Health,
) -> Settler:
    """Return what ends the repairs that nobody else ends, also on a host that takes none any more."""

    def report(
        task_id: UUID, attempt: int, trace_id: UUID | None, reports: Sequence[StepReport]
    ) -> asyncio.Future[None]:
        status = status_of(identity.agent_id, task_id, attempt, reports, trace_id=trace_id)
        return reporter.post(PROGRESS, status)

    def keep_for(task_id: UUID, attempt: int, trace_id: UUID | None) -> Keep:
        return files.of(Owner(task_id, attempt, trace_id), known_secrets or Values()).keep

    return Settler(
        Store.below(settings.state_dir),
        starter=keepers,
        environment=inherited(settings.env_allow),
        attempts=attempts,
        report=report,
        keep=keep_for,
        known_secrets=known_secrets,
        clock=clock,
        health=health,
    )


async def _open_files(
    stack: AsyncExitStack,
    settings: AgentSettings,
    identity: Identity,
    reporter: Reporter,
    clock: Clock,
    health: Health,
) -> tuple[ArtifactSender, Wants, Files]:
    """Open the spool of files, and owe what an earlier life left in it. Raises `StateUnusable`."""
    limit, total = settings.max_artifact_bytes, settings.max_artifacts_bytes
    spool = ArtifactSpool(settings.state_dir / ARTIFACTS, limit=limit, total=total)
    try:
        left = await asyncio.to_thread(spool.open)
    except OSError as error:
        raise StateUnusable(settings.state_dir, error) from None
    stack.callback(spool.close)
    resend_after = timedelta(seconds=settings.result_resend_seconds)
    sender = await stack.enter_async_context(
        ArtifactSender(spool, reporter, identity.agent_id, clock, resend_after=resend_after, health=health)
    )
    sender.owe(left)
    wants = Wants(reporter, identity.agent_id, limit=limit)
    return sender, wants, Files(spool, sender, wants)


async def _open_state(
    stack: AsyncExitStack,
    settings: AgentSettings,
    identity: Identity,
    reporter: Reporter,
    clock: Clock,
    health: Health,
    hearing: Hearing,
    availability: Availability,
) -> tuple[Journal, Handover, list[Key], LateRecovery, Begun]:
    """Open the journal and the spool, and put in order what they hold.

    Return with them the results to send first, what is to be done later, and what earlier lives have begun.
    """
    file, spool = JournalFile(settings.state_dir / "journal.jsonl"), Spool(settings.state_dir / "spool")
    try:
        lines = await asyncio.to_thread(lambda: list(file.read()))
        spooled = await asyncio.to_thread(spool.open)
    except OSError as error:
        raise StateUnusable(settings.state_dir, error) from None
    boot = host_boot_id()
    unfinished, already_begun = await asyncio.to_thread(
        lambda: (unended(lines), Begun(begun(lines), sessions=sessions(lines, host_boot_id=boot)))
    )
    fates = {fate: [one for one in unfinished if fate_of(one.started) is fate] for fate in Fate}
    if fates[Fate.RUNS]:
        raise CopyOfRunningAgent(settings.state_dir, fates[Fate.RUNS][0].started.agent_pid)
    try:
        journal = stack.enter_context(Journal(file, session=identity.boot_id, host_boot_id=boot))
    except OSError as error:
        raise StateUnusable(settings.state_dir, error) from None
    resend_after = timedelta(seconds=settings.result_resend_seconds)
    handover = await stack.enter_async_context(
        Handover(spool, reporter, clock, resend_after=resend_after, health=health)
    )
    recovering = partial(
        recover,
        agent_id=identity.agent_id,
        spooled=spooled,
        spool=spool,
        journal=journal,
        handover=handover,
        repairs=Store.below(settings.state_dir),
    )
    owed = await recovering(fates[Fate.OVER])
    doubtful = fates[Fate.UNKNOWN]
    handover.expect(Key(one.started.task_id, one.started.attempt) for one in doubtful)
    after = max(timedelta(seconds=settings.heartbeat_seconds) * MISSED_BEATS, LEAST_SILENCE)
    late = LateRecovery(doubtful, recovering, handover, hearing, availability, after=after)
    return journal, handover, [*spooled, *owed], late, already_begun
