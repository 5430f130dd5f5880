"""Which agents a fan-out means, how many work at a time, and how it stands."""

import time
from typing import Any
from uuid import uuid4

import pytest

from common.errors import InvalidField
from common.lifecycle import Status
from common.messages import AgentStatus
from orchestrator.fan_outs.model import Pace, Selector, Skipped
from orchestrator.fan_outs.rules import MOST_AGENTS, batch_of, select, status_of
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


def test_labels_mean_the_agents_of_the_pool_that_have_all_of_them_and_are_there() -> None:
    labels = {"zone": "eu", "cores": 8}
    pool = [
        make_agent("echo", name="fits", labels=labels),
        make_agent("echo", name="elsewhere", labels=labels | {"zone": "us"}),
        make_agent("echo", name="small", labels=labels | {"cores": 4}),
        make_agent("echo", name="away", labels=labels, status=AgentStatus.OFFLINE),
        make_agent("echo", name="of-another-pool", labels=labels, agent_type="desktop"),
    ]

    names, skipped = selected(pool, labels=labels)

    assert names == ["fits"]
    assert skipped == [Skipped("away", "offline")]


def test_a_name_of_an_agent_of_another_pool_means_nobody() -> None:
    pool = [make_agent("echo", name="one"), make_agent("echo", name="other", agent_type="desktop")]

    with pytest.raises(InvalidField, match="is no agent of the pool"):
        selected(pool, agents=["other"])


def test_no_more_agents_get_a_task_at_once_than_the_limit() -> None:
    pool = [make_agent("echo", name=f"web-{number}") for number in range(MOST_AGENTS + 1)]

    names, _ = selected(pool[:-1])

    assert len(names) == MOST_AGENTS
    with pytest.raises(InvalidField, match=f"at most {MOST_AGENTS}"):
        selected(pool)


@pytest.mark.parametrize(
    ("batch", "at_a_time"), [(None, 15), (1, 1), (1000, 1000), ("1%", 1), ("10%", 2), ("50%", 8), ("100%", 15)]
)
def test_a_batch_is_a_number_or_a_part_of_the_agents_and_never_nobody(batch: int | str | None, at_a_time: int) -> None:
    assert batch_of(Pace(batch), 15) == at_a_time


@pytest.mark.parametrize("batch", [0, -1, 1001, "0%", "101%", "10", "ten%", "", "1000%"])
def test_a_batch_of_nobody_or_of_more_than_all_is_refused(batch: int | str) -> None:
    with pytest.raises(InvalidField) as refused:
        batch_of(Pace(batch), 15)

    assert refused.value.field == "batch"


PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, AWAITING = (
    Status.PENDING,
    Status.RUNNING,
    Status.COMPLETED,
    Status.FAILED,
    Status.CANCELLED,
    Status.AWAITING_APPROVAL,
)


@pytest.mark.parametrize(
    ("tasks", "together"),
    [
        ([PENDING, PENDING], PENDING),
        ([PENDING, AWAITING], PENDING),
        ([AWAITING, AWAITING], AWAITING),
        ([PENDING, RUNNING], RUNNING),
        ([PENDING, COMPLETED], RUNNING),
        ([AWAITING, FAILED], RUNNING),
        ([RUNNING, FAILED, CANCELLED], RUNNING),
        ([COMPLETED, COMPLETED], COMPLETED),
        ([COMPLETED, CANCELLED], CANCELLED),
        ([COMPLETED, CANCELLED, FAILED], FAILED),
    ],
)
def test_a_fan_out_has_ended_when_all_its_tasks_have_and_failed_when_one_has(
    tasks: list[Status], together: Status
) -> None:
    assert status_of(tasks) is together
