"""What the REST API answers about capacity."""

from collections.abc import Sequence

from common.rest.capacity import AgentCapacity, Capacity
from orchestrator.why import capacity


def capacity_answer(found: Sequence[capacity.AgentCapacity]) -> Capacity:
    """Return which agents could take work, and how much of it."""
    agents = [
        AgentCapacity(
            agent_id=one.agent.agent_id,
            name=one.agent.name,
            agent_type=one.agent.agent_type,
            can=not one.reasons,
            slots=one.agent.slots,
            free_slots=one.free_slots,
            labels=dict(one.agent.labels),
            reasons=list(one.reasons),
        )
        for one in found
    ]
    return Capacity(agents=agents, free_slots=sum(one.free_slots for one in agents if one.can))
