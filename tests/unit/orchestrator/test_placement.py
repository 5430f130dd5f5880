"""Who may take a task that aims at certain agents, and who gets it."""

from typing import Any
from uuid import UUID

import pytest

from common.confinement import Confinement
from orchestrator.placement.model import Aim
from orchestrator.placement.rules import aim_of, has, preference, suits, unmet

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


def aim(**hints: Any) -> Aim:
    found = aim_of("infra", hints)
    assert found is not None
    return found


def test_without_such_hints_a_task_aims_at_nobody_in_particular() -> None:
    assert aim_of("infra", {}) is None
    assert aim_of("infra", {"agent_type": "infra", "required_capabilities": {}}) is None


def test_confined_work_goes_only_to_who_can_confine_it_and_what_everybody_can_do_aims_at_nobody() -> None:
    walled = Confinement(network_off=True, max_cpu_seconds=5)

    found = aim_of("infra", {}, walled)
    asked = aim_of("infra", {"required_capabilities": {"enforces": "sandbox", "ssd": True}}, walled)

    assert aim_of("infra", {}, Confinement(max_cpu_seconds=5)) is None
    assert found is not None
    assert asked is not None
    assert suits(found, ONE, {"enforces": ["max_cpu_seconds", "network_off"]})
    assert not suits(found, ONE, {"enforces": ["max_cpu_seconds"]})
    assert not suits(found, ONE, {})
    assert asked.requires == {"enforces": ["network_off", "sandbox"], "ssd": True}


def test_the_same_hints_are_the_same_aim_whatever_their_order() -> None:
    one = aim(required_capabilities={"a": 1, "b": "x"}, preferred=["ssd"])
    other = aim(preferred={"ssd": True}, required_capabilities={"b": "x", "a": 1})

    assert one.key == other.key
    assert one.key != aim(required_capabilities={"a": 2, "b": "x"}, preferred=["ssd"]).key
    assert aim(agent_id=str(ONE)).key != aim(agent_id=str(TWO)).key


@pytest.mark.parametrize(
    ("have", "wanted", "expected"),
    [
        (24, 16, True),
        (24, 24.0, True),
        (16, 24, False),
        (True, 1, False),
        ("24", 16, False),
        ("eu", "eu", True),
        ("eu", "us", False),
        (True, True, True),
        (False, True, False),
        (1, True, False),
        (["a", "b"], ["b"], True),
        (["a", "b"], ["b", "c"], False),
        (["a", "b"], "a", True),
        ("a", ["a"], True),
    ],
)
def test_a_label_meets_what_is_wanted_of_it(have: Any, wanted: Any, expected: bool) -> None:
    assert has({"it": have}, "it", wanted) is expected
    assert has({}, "it", wanted) is False


def test_an_agent_suits_when_it_is_the_one_or_has_everything() -> None:
    assert suits(aim(agent_id=str(ONE)), ONE, {})
    assert not suits(aim(agent_id=str(ONE)), TWO, {})
    wanted = aim(required_capabilities={"gpu": 24, "zone": "eu"})
    assert suits(wanted, ONE, {"gpu": 48, "zone": "eu"})
    assert unmet(wanted, {"gpu": 8}) == ["gpu", "zone"]


def test_an_agent_is_liked_for_each_label_that_is_preferred() -> None:
    wanted = aim(preferred={"ssd": True, "cores": 8, "zone": "eu"})

    assert preference(wanted, {"ssd": True, "cores": 16, "zone": "us"}) == 2
    assert preference(wanted, {}) == 0
