"""An agent runs the work types that are built in and those that its settings add, or says what is wrong with one."""

import pytest

from agents.executors.base import Host
from agents.executors.registry import ExecutorUnusable, announced_labels, announced_schemas, executors
from agents.settings import AgentSettings
from common.schemas import MAX_SCHEMA_BYTES

CLASSES = "tests.unit.agents.executor_classes"


def test_without_settings_those_that_need_none_are_offered() -> None:
    assert executors(Host()).keys() == {"echo", "shell_script", "metrics"}


def test_a_class_of_the_settings_adds_its_work_type_with_its_schema_and_labels() -> None:
    known = executors(Host(), [f"{CLASSES}:Labelled"])

    assert known.keys() == {"echo", "shell_script", "metrics", "labelled"}
    assert announced_schemas(known).keys() == {"labelled"}
    assert announced_schemas(known)["labelled"]["additionalProperties"] is False
    assert announced_labels(known.values(), {"ssd": True}) == {"zone": "executor", "renders": True, "ssd": True}


def test_a_label_of_the_operator_counts_before_that_of_an_executor() -> None:
    known = executors(Host(), [f"{CLASSES}:Labelled"])

    assert announced_labels(known.values(), {"zone": "eu"})["zone"] == "eu"


def test_an_executor_may_decline_a_host() -> None:
    assert "not_here" not in executors(Host(), [f"{CLASSES}:NotHere"])


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["no.such.module:Class"], "ModuleNotFoundError: No module named 'no'"),
        ([f"{CLASSES}:Missing"], "has no attribute 'Missing'"),
        ([f"{CLASSES}:not_a_class"], "must be a class with Executor as its base"),
        ([f"{CLASSES}:Parameters"], "must be a class with Executor as its base"),
        ([f"{CLASSES}:Unfinished"], "and carry_out"),
        ([f"{CLASSES}:BadName"], "kind must be a name of small letters, digits and '_'"),
        ([f"{CLASSES}:NoModel"], "parameters must be a pydantic model"),
        ([f"{CLASSES}:Huge"], f"their JSON Schema must have at most {MAX_SCHEMA_BYTES} bytes"),
        ([f"{CLASSES}:Second"], "there is another executor for 'echo'"),
        ([f"{CLASSES}:Nothing", f"{CLASSES}:Again"], "there is another executor for 'nothing'"),
        ([f"{CLASSES}:Needy"], "offer raised TypeError"),
    ],
)
def test_an_executor_that_cannot_be_used_keeps_the_agent_from_starting(names: list[str], problem: str) -> None:
    with pytest.raises(ExecutorUnusable, match=r"^\[agent\] executors: ") as refused:
        executors(Host(), names)

    assert names[-1] in str(refused.value)
    assert problem in str(refused.value)


def test_labels_that_cannot_be_announced_keep_the_agent_from_starting() -> None:
    known = executors(Host(), [f"{CLASSES}:BadLabel"])

    with pytest.raises(ExecutorUnusable, match="'bad_label' cannot be used: its labels: 'not a name'"):
        announced_labels(known.values(), {})


@pytest.mark.parametrize("given", ["a.b:C, d:E", '["a.b:C", "d:E"]'])
def test_the_environment_names_several(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("CHIFFON_AGENT_EXECUTORS", given)

    assert AgentSettings.load().executors == ["a.b:C", "d:E"]
