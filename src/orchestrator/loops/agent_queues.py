"""Make the queues of agents that cannot make their own: on RabbitMQ an agent's user may not declare anything."""

import logging
from collections.abc import Mapping
from uuid import UUID

from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable

log = logging.getLogger(__name__)


async def give_queues(broker: Broker, agents: Mapping[UUID, str]) -> bool:
    """Make the two queues of each agent, given with its pool, and say whether that worked.

    What fails is tried again when the agent is heard next.

    They are not kept in mind: an agent that is heard again after its queues have gone gets them again.
    """
    queues = [
        queue
        for agent_id, pool in sorted(agents.items())
        for queue in (topology.control_queue(agent_id), topology.work_queue(pool, agent_id))
    ]
    try:
        await broker.declare(*queues, keep=False)
    except BrokerUnavailable as error:
        log.warning("agent.queues_not_made", extra={"agents": len(agents), "reason": str(error)})
        return False
    log.info("agent.queues_made", extra={"agents": [str(agent_id) for agent_id in agents]})
    return True
