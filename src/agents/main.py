"""Start an agent."""

import asyncio
import logging
from contextlib import AsyncExitStack

from agents.executors.registry import executors
from agents.registration import open_identity
from agents.settings import AgentSettings
from agents.wiring import build_agent
from common import safeguards
from common.broker.base import Broker, BrokerUnavailable
from common.broker.connect import open_broker
from common.broker.topology import DEAD_LETTER_QUEUE, REPLY_QUEUES, control_queue, work_queue
from common.config import SharedSettings
from common.errors import StartupRefused
from common.logs import log_context

log = logging.getLogger(__name__)


class BrokerNotReady(StartupRefused):
    def __init__(self, failure: BrokerUnavailable) -> None:
        super().__init__(
            f"The message broker cannot be used: {failure} Check CHIFFON_BROKER_URL and that it is running."
        )


async def run_agent(
    settings: AgentSettings, shared: SharedSettings, *, broker: Broker | None = None, stop: asyncio.Event
) -> None:
    """Run one agent until `stop` is set, or until it was drained, then leave gracefully.

    `broker` is given when everything runs in one process. Raises `StartupRefused` when the broker cannot be reached,
    or the agent's state is in use or unusable, or when the agent hears nothing for longer than the settings allow.
    """
    safeguards.check()
    known = executors()
    async with AsyncExitStack() as stack:
        identity = stack.enter_context(open_identity(settings, work_types=known))
        stack.enter_context(log_context(agent_id=identity.agent_id))
        try:
            if broker is None:
                broker = await stack.enter_async_context(
                    open_broker(shared.broker_url, name=f"agent {identity.agent_id}")
                )
            await broker.declare(
                DEAD_LETTER_QUEUE, *REPLY_QUEUES, work_queue(identity.agent_type), control_queue(identity.agent_id)
            )
        except BrokerUnavailable as failure:
            raise BrokerNotReady(failure) from failure
        agent = await stack.enter_async_context(build_agent(settings, identity, broker, known))
        log.info(
            "agent.started",
            extra={
                "agent_type": identity.agent_type,
                "hostname": identity.hostname,
                "slots": identity.slots,
                "work_types": list(identity.work_types),
            },
        )
        await agent.run(stop)
