"""Start an agent."""

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from agents.executors.base import Host
from agents.executors.enforcement import Enforcement, probe
from agents.executors.environment import inherited
from agents.executors.registry import announced_labels, announced_schemas, executors
from agents.gate.trust import Trust, open_trust
from agents.identity.own_secrets import own_secrets
from agents.identity.registration import open_identity
from agents.processes.keepers import Keepers
from agents.secrets.resolve import Secrets
from agents.settings import AgentSettings, own_files
from agents.way import open_way
from agents.wiring import WORKSPACES, build_agent
from common.broker.base import Broker
from common.clock import Clock
from common.config import SharedSettings
from common.logs import log_context
from common.open_files import raise_open_files
from common.policy.read import read_policy
from common.policy.rules import decide
from common.redaction.logs import hidden_in_logs
from common.redaction.values import Values

log = logging.getLogger(__name__)


async def run_agent(
    settings: AgentSettings,
    shared: SharedSettings,
    *,
    broker: Broker | None = None,
    clock: Clock | None = None,
    stop: asyncio.Event,
    started: asyncio.Event | None = None,
) -> None:
    """Run one agent until `stop` is set, or until it was drained, then leave gracefully.

    `broker` is given when everything runs in one process. `started` is set when the agent begins to work. Raises
    `StartupRefused` when the broker, or the server that takes its place, cannot be reached, when the agent's state is
    in use or unusable, when an executor of the settings cannot be used, when the agent hears nothing for longer than
    the settings allow, or when the orchestrator refuses this process because an earlier one with the same identity
    still runs.
    """
    known = executors(_host(settings), settings.executors)
    async with AsyncExitStack() as stack:
        known_secrets = Values(own_secrets(settings, shared))
        stack.enter_context(hidden_in_logs(known_secrets))
        keepers = stack.enter_context(Keepers(open_files=raise_open_files()))
        secrets = Secrets(settings.secrets, known_secrets, keepers, inherited=inherited(settings.env_allow))
        await secrets.read_now()
        identity = stack.enter_context(open_identity(settings, work_types=known))
        stack.enter_context(log_context(agent_id=identity.agent_id))
        trust = _trust(settings)
        enforcement = await _enforcement(settings, keepers)
        own = {**identity.labels, "enforces": sorted(enforcement.possible)}
        labels = announced_labels(known.values(), own)
        identity = replace(identity, labels=labels, schemas=announced_schemas(known))
        way = await stack.enter_async_context(open_way(settings, shared, identity, broker=broker))
        agent = await stack.enter_async_context(
            build_agent(
                settings,
                identity,
                way,
                known,
                trust,
                keepers,
                policy=None if settings.policy_file is None else partial(decide, read_policy(settings.policy_file)),
                known_secrets=known_secrets,
                secrets=secrets,
                enforcement=enforcement,
                clock=clock,
            )
        )
        log.info(
            "agent.started",
            extra={
                "agent_type": identity.agent_type,
                "hostname": identity.hostname,
                "slots": identity.slots,
                "work_types": list(identity.work_types),
            },
        )
        if started is not None:
            started.set()
        await agent.run(stop)


def _host(settings: AgentSettings) -> Host:
    return Host(settings.playbooks_dir, tuple(settings.cwd_allow), settings.compose_root, settings.state_dir)


async def _enforcement(settings: AgentSettings, keepers: Keepers) -> Enforcement:
    return await probe(
        keepers,
        run_as=settings.run_as,
        least=settings.confinement,
        workspaces=settings.state_dir / WORKSPACES,
        readable=settings.sandbox_readable,
        writable=settings.sandbox_writable,
        hidden=own_files(settings),
    )


def _trust(settings: AgentSettings) -> Trust | None:
    if settings.signatures == "off":
        log.warning("signatures.off")
        return None
    return open_trust(settings.state_dir, settings.trusted_keys)
