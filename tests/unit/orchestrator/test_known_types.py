"""What is known of a work type: from its model, its route, and the agents that are there."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from common.messages import AgentStatus
from common.rest.work_types import OfferingAgent
from common.work import PARAMETERS
from orchestrator.registry.model import Agent
from orchestrator.work_types.rules import known_types

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ROUTES = {"echo": "infra", "render": "gpu"}


def make_agent(*work_types: str, schemas: dict[str, Any] | None = None, **values: Any) -> Agent:
    given: dict[str, Any] = {
        "agent_id": uuid4(),
        "name": "web-1",
        "agent_type": "infra",
        "status": AgentStatus.ONLINE,
        "hostname": "host",
        "version": "1",
        "work_types": work_types,
        "slots": 1,
        "current_tasks": [],
        "resources": {"cpu_percent": 1.0},
        "schemas": schemas or {},
        "started_at": NOW,
        "last_heartbeat_at": NOW,
    }
    return Agent(**{**given, **values})


def test_types_that_are_built_in_routed_or_offered_are_listed_by_name() -> None:
    found = known_types(ROUTES, [make_agent("echo", "own")])

    assert [known.name for known in found] == sorted([*PARAMETERS, "render", "own"])


def test_a_type_that_is_built_in_has_its_model_and_is_checked() -> None:
    agents = [make_agent("echo"), make_agent("echo", agent_type="desktop"), make_agent("metrics")]

    [echo] = [known for known in known_types(ROUTES, agents) if known.name == "echo"]

    assert (echo.pool, echo.checked) == ("infra", True)
    assert echo.description == "Return a text unchanged; proves that the whole path works."
    assert echo.parameters is not None
    assert echo.parameters["additionalProperties"] is False
    assert echo.agents == [
        OfferingAgent(agent_id=agent.agent_id, name="web-1", hostname="host", agent_type=agent.agent_type)
        for agent in agents[:2]
    ]


def test_another_type_has_the_schema_of_the_agent_that_started_last() -> None:
    old, new = {"description": "old"}, {"description": "new", "type": "object"}
    agents = [
        make_agent("render", schemas={"render": old}),
        make_agent("render", schemas={"render": new}, started_at=NOW + timedelta(days=1)),
        make_agent("render", started_at=NOW + timedelta(days=2)),
    ]

    [render] = [known for known in known_types(ROUTES, agents) if known.name == "render"]

    assert (render.pool, render.description, render.parameters, render.checked) == ("gpu", "new", new, False)
    assert len(render.agents) == 3


def test_agents_that_are_away_offer_nothing() -> None:
    away = make_agent("own", "render", schemas={"render": {"type": "object"}}, status=AgentStatus.OFFLINE)

    found = {known.name: known for known in known_types(ROUTES, [away])}

    assert "own" not in found
    assert (found["render"].agents, found["render"].parameters) == ([], None)


def test_a_schema_of_a_type_that_is_built_in_or_no_longer_offered_does_not_count() -> None:
    agent = make_agent("echo", schemas={"echo": {"description": "mine"}, "render": {"description": "gone"}})

    found = {known.name: known for known in known_types(ROUTES, [agent])}

    assert found["echo"].description != "mine"
    assert found["render"].description is None
