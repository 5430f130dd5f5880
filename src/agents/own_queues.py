"""Make the queues that an agent reads exist, where the agent may."""

import logging
from contextlib import suppress

from common.broker.base import Broker, NotPermitted, Queue

log = logging.getLogger(__name__)


async def declare_if_allowed(broker: Broker, *queues: Queue) -> None:
    """Declare queues, or leave it to the orchestrator: it does so when it hears of the agent, and a consumer waits."""
    with suppress(NotPermitted):
        await broker.declare(*queues)
        return
    log.debug("queues.left_to_orchestrator", extra={"queues": [queue.name for queue in queues]})
