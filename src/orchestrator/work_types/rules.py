"""What is known of each work type: a pure decision over routes and agents."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.messages import AgentStatus
from common.rest.work_types import KnownWorkType, OfferingAgent
from common.schemas import schema_of
from common.work import PARAMETERS
from orchestrator.registry.model import Agent


def known_types(routes: Mapping[str, str], agents: Sequence[Agent]) -> list[KnownWorkType]:
    """Return all work types in the order of their names.

    Of a type that is not built in, the schema is that of the agent that started last.
    """
    there = [agent for agent in agents if agent.status is not AgentStatus.OFFLINE]
    names = {*PARAMETERS, *routes, *(work_type for agent in there for work_type in agent.work_types)}
    return [_known(name, routes.get(name), there) for name in sorted(names)]


def _known(name: str, pool: str | None, there: Sequence[Agent]) -> KnownWorkType:
    offering = [agent for agent in there if name in agent.work_types]
    model = PARAMETERS.get(name)
    schema = _announced(name, offering) if model is None else schema_of(model)
    description = None if schema is None else schema.get("description")
    return KnownWorkType(
        name=name,
        pool=pool,
        description=description if isinstance(description, str) else None,
        parameters=schema,
        checked=model is not None,
        agents=[
            OfferingAgent(
                agent_id=agent.agent_id, name=agent.name, hostname=agent.hostname, agent_type=agent.agent_type
            )
            for agent in offering
        ],
    )


def _announced(name: str, offering: Sequence[Agent]) -> dict[str, Any] | None:
    by_start = sorted(offering, key=lambda agent: agent.started_at, reverse=True)
    return next((agent.schemas[name] for agent in by_start if name in agent.schemas), None)
