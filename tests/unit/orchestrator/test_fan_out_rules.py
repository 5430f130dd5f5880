"""Which agents a fan-out means."""

import time
from typing import Any
from uuid import uuid4

import pytest

from common.errors import InvalidField
from common.messages import AgentStatus
from orchestrator.fan_outs.model import Selector, Skipped
from orchestrator.fan_outs.rules import MOST_AGENTS, select
from orchestrator.registry.model import Agent
from tests.unit.orchestrator.test_known_types import make_agent


def selected(pool: list[Agent], **wanted: Any) -> tuple[list[str], list[Skipped]]:
    found = select(Selector(**wanted), pool, agent_type="infra", work_type="echo")
    return [target.name for target in found.targets], list(found.skipped)


def test_agents_are_meant_by_name_or_id_each_once_and_one_of_several_that_is_there() -> None:
    one, two = make_agent("echo", name="one"), make_agent("echo", name="two", status=AgentStatus.OFFLINE)
    other = make_agent("metrics", name="other")
    gone = make_agent("echo", name="one", status=AgentStatus.OFFLINE)

    names, skipped = selected([one, two, other, gone], agents=["two", "one", "one", str(one.agent_id), "other"])

    assert names == ["two", "one"]
    assert skipped == [Skipped("other", "offers no echo")]


@pytest.mark.parametrize(("name", "said"), [("none", "is no agent of the pool"), ("one", "is the name of 2 agents")])
def test_a_name_of_no_agent_or_of_several_is_refused(name: str, said: str) -> None:
    with pytest.raises(InvalidField, match=said):
        selected([make_agent("echo", name="one"), make_agent("echo", name="one")], agents=[name])


def test_many_names_are_looked_up_in_a_large_pool_in_no_time() -> None:
    agents = [make_agent("echo", name=f"web-{number}") for number in range(5 * MOST_AGENTS)]
    wanted = [str(agent.agent_id) for agent in agents[-MOST_AGENTS:]]
    begun = time.process_time()

    names, _ = selected(agents, agents=wanted)

    # To hold each name against each agent took several seconds.
    assert time.process_time() - begun < 1
    assert len(names) == MOST_AGENTS
    with pytest.raises(InvalidField, match=r"known: (web-\d+, ){19}web-\d+$"):
        selected(agents, agents=[*wanted, str(uuid4())])
