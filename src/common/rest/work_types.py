"""The answer of `GET /api/v1/work-types`."""

from uuid import UUID

from pydantic import Field

from common.rest.base import Answer
from common.schemas import JsonSchema


class OfferingAgent(Answer):
    """An agent that is there and offers a work type."""

    agent_id: UUID = Field(description="The agent.")
    name: str = Field(description="Its name.")
    hostname: str = Field(description="Its host.")
    agent_type: str = Field(description="The pool that it belongs to.")


class KnownWorkType(Answer):
    """A work type that is built in, has a route, or is offered by an agent that is there."""

    name: str = Field(description="The work type.")
    pool: str | None = Field(description="Where its route leads; null for a type that only the queue API serves.")
    description: str | None = Field(default=None, description="What it does; null where nothing is known.")
    parameters: JsonSchema | None = Field(
        default=None, description="JSON Schema of its parameters; null where nothing is known."
    )
    checked: bool = Field(description="A dispatch is checked against it; otherwise only the agent checks.")
    agents: list[OfferingAgent] = Field(description="The agents that are there and offer it, in any pool.")
