"""Who may take a task that aims at certain agents, and who gets it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.confinement import Confinement
from orchestrator.placement.model import Aim, Host
from orchestrator.placement.rules import aim_of, anybody, has, place, place_again, suits, unmet

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


def aim(**hints: Any) -> Aim:
    found = aim_of("infra", hints)
    assert found is not None
    return found


def host(agent_id: UUID, *, free: int = 1, pool: str = "infra", **labels: Any) -> Host:
    return Host(agent_id, pool, labels, free)


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


def test_what_is_preferred_comes_before_room_and_room_before_the_rest() -> None:
    hosts = [host(ONE, free=9), host(TWO, free=1, ssd=True), host(THREE, free=4)]

    assert place(aim(preferred=["ssd"]), hosts, 3) == [TWO, ONE, ONE]
    assert place(aim(required_capabilities={"ssd": True}), hosts, 3) == [TWO]
    assert place(aim(required_capabilities={"tape": True}), hosts, 3) == []
    assert place(aim(preferred=["ssd"]), [host(ONE, pool="gpu", ssd=True)], 1) == []


@given(
    rooms=st.lists(st.integers(min_value=0, max_value=4), max_size=6),
    wants=st.booleans(),
    count=st.integers(min_value=0, max_value=30),
)
def test_nobody_gets_more_than_there_is_room_for_and_no_room_is_left_that_was_asked_for(
    rooms: list[int], wants: bool, count: int
) -> None:
    hosts = [host(UUID(int=n + 1), free=free, odd=bool(n % 2)) for n, free in enumerate(rooms)]
    wanted = aim(required_capabilities={"odd": True}) if wants else aim(preferred={"odd": True})

    placed = place(wanted, hosts, count)

    able = [one for one in hosts if not wants or one.labels["odd"]]
    assert len(placed) == min(count, sum(one.free for one in able))
    for one in hosts:
        assert placed.count(one.agent_id) <= (one.free if one in able else 0)


@pytest.mark.parametrize(
    ("refused", "free", "expected"),
    [
        ({}, (1, 1, 1), ONE),
        ({ONE: 5, TWO: 90}, (1, 1, 1), THREE),
        ({ONE: 300, TWO: 5, THREE: 90}, (1, 1, 1), ONE),
        ({ONE: 300, TWO: 5, THREE: 90}, (0, 1, 1), THREE),
        ({ONE: 300, TWO: 200}, (1, 1, 0), ONE),
        ({ONE: 60, TWO: 5, THREE: 59}, (1, 1, 1), None),
    ],
    ids=[
        "nobody refused",
        "one did not",
        "longest ago",
        "longest ago with room",
        "who did not is busy",
        "all just now",
    ],
)
def test_what_some_have_refused_goes_to_others_first_and_then_to_who_did_so_longest_ago(
    refused: dict[UUID, int], free: tuple[int, int, int], expected: UUID | None
) -> None:
    hosts = [host(agent_id, free=room) for agent_id, room in zip((ONE, TWO, THREE), free, strict=True)]
    ago = {agent_id: timedelta(seconds=seconds) for agent_id, seconds in refused.items()}

    assert place_again(anybody("infra"), hosts, ago, memory=timedelta(seconds=60)) == expected
