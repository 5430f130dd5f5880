"""Which agent gets which of the tasks that wait."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.lifecycle import Status
from orchestrator.leases.model import Asker, Line
from orchestrator.leases.pairing import line_of, pair, suitable
from orchestrator.leases.rules import REFUSAL_MEMORY
from orchestrator.placement.model import Aim
from orchestrator.placement.rules import aim_of
from orchestrator.tasks.model import Task
from tests.test_orchestrator_api import make_task

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


def waiting(number: int = 1, **values: Any) -> Task:
    waits = {"status": Status.PENDING, "attempt": 0, "agent_id": None, "work_type": "echo", "aim": ""}
    return make_task(**{**waits, "task_id": UUID(int=number), **values})


def tasks(count: int, **values: Any) -> list[Task]:
    return [waiting(number, **values) for number in range(1, count + 1)]


def asker(agent_id: UUID, room: int = 1, *, pool: str = "infra", takes: Sequence[str] = (), **labels: Any) -> Asker:
    return Asker(agent_id, pool, UUID(int=99), room, timedelta(seconds=30), frozenset(takes) or None, labels)


def aim(**hints: Any) -> Aim:
    found = aim_of("infra", hints)
    assert found is not None
    return found


def paired(work: Sequence[Task], askers: Sequence[Asker], aims: Sequence[Aim] = (), **options: Any) -> list[UUID]:
    """Return who gets the tasks, in their order; those that nobody gets are left out."""
    return [to.agent_id for _, to in pair(work, askers, {one.key: one for one in aims}, **options).pairs]


def test_a_task_goes_to_the_agent_with_most_room_and_among_equals_to_the_first() -> None:
    assert paired(tasks(5), [asker(ONE, 1), asker(TWO, 3), asker(THREE, 1)]) == [TWO, TWO, ONE, TWO, THREE]


def test_the_first_tasks_go_when_there_is_room_for_some_only() -> None:
    work = tasks(4)

    assert [task for task, _ in pair(work, [asker(ONE, 2)], {}).pairs] == work[:2]


def test_an_agent_gets_only_the_kinds_of_work_that_it_takes_of_its_own_pool() -> None:
    echo, anything, elsewhere = asker(ONE, 9, takes=["echo"]), asker(TWO, 1), asker(THREE, 9, pool="gpu")

    assert suitable(Line("infra", "render", ""), None, [echo, anything, elsewhere]) == [anything]
    assert paired([waiting(1, work_type="render"), waiting(2), waiting(3, work_type="render")], [echo, anything]) == [
        TWO,
        ONE,
    ]


def test_what_nobody_takes_holds_up_nothing_behind_it() -> None:
    work = [waiting(1, work_type="render"), waiting(2)]

    assert pair(work, [asker(ONE, takes=["echo"])], {}).pairs[0][0] is work[1]


def test_work_that_aims_at_agents_goes_to_those_alone() -> None:
    gpu, one = aim(required_capabilities={"gpu": 16}), aim(agent_id=str(THREE))
    askers = [asker(ONE, 9), asker(TWO, 1, gpu=24), asker(THREE, 1)]
    work = [waiting(1, aim=gpu.key), waiting(2, aim=gpu.key), waiting(3, aim=one.key), waiting(4, aim=one.key)]

    assert paired(work, askers, [gpu, one]) == [TWO, THREE]


def test_work_whose_aim_is_not_known_goes_to_nobody() -> None:
    assert paired([waiting(aim="gone")], [asker(ONE)]) == []


def test_what_is_preferred_comes_before_room() -> None:
    likes = aim(preferred={"ssd": True, "zone": "eu"})
    askers = [asker(ONE, 9), asker(TWO, 1, ssd=True), asker(THREE, 1, ssd=True, zone="eu")]

    assert paired(tasks(4, aim=likes.key), askers, [likes]) == [THREE, TWO, ONE, ONE]


def test_the_room_of_an_agent_is_shared_by_all_the_lines_that_it_takes() -> None:
    likes = aim(preferred={"ssd": True})
    work = [waiting(1), waiting(2, aim=likes.key), waiting(3, work_type="render"), waiting(4), waiting(5)]

    assert paired(work, [asker(ONE, 2, ssd=True), asker(TWO, 2)], [likes]) == [ONE, ONE, TWO, TWO]


@pytest.mark.parametrize(
    ("refused", "rooms", "expected"),
    [
        ({ONE: 5}, (9, 1, 1), TWO),
        ({ONE: 5, TWO: 90}, (1, 1, 1), THREE),
        ({ONE: 300, TWO: 5, THREE: 90}, (1, 9, 1), ONE),
        ({ONE: 300, TWO: 5, THREE: 90}, (0, 1, 1), THREE),
        ({ONE: 300, TWO: 200}, (1, 1, 0), ONE),
        ({ONE: 60, TWO: 5, THREE: 59}, (1, 1, 1), None),
    ],
    ids=[
        "most room, but it refused",
        "one did not",
        "longest ago",
        "longest ago with room",
        "who did not is busy",
        "all just now",
    ],
)
def test_what_some_refused_goes_to_others_first_and_then_to_who_did_so_longest_ago(
    refused: dict[UUID, int], rooms: tuple[int, int, int], expected: UUID | None
) -> None:
    work = waiting(1)
    ago = {work.task_id: {agent_id: timedelta(seconds=seconds) for agent_id, seconds in refused.items()}}
    askers = [asker(agent_id, room) for agent_id, room in zip((ONE, TWO, THREE), rooms, strict=True)]

    found = pair([work], askers, {}, ago)

    assert [to.agent_id for _, to in found.pairs] == ([] if expected is None else [expected])
    assert set(found.resting) == (set() if expected is not None else {work.task_id})


@pytest.mark.parametrize(("ago", "rest"), [(0.0, 1), (7.0, 7), (59.0, 59)])
def test_a_task_rests_twice_as_long_each_time_and_holds_up_nothing_behind_it(ago: float, rest: int) -> None:
    refused, behind = tasks(2)

    found = pair([refused, behind], [asker(ONE, 1)], {}, {refused.task_id: {ONE: timedelta(seconds=ago)}})

    assert found.resting == {refused.task_id: timedelta(seconds=rest)}
    assert found.pairs == [(behind, found.pairs[0][1])]


def test_a_task_that_all_with_room_refused_rests_until_the_first_of_them_may_have_it() -> None:
    work = waiting(1)
    ago = {work.task_id: {ONE: timedelta(seconds=50), TWO: timedelta(seconds=5)}}

    assert pair([work], [asker(ONE), asker(TWO)], {}, ago).resting == {work.task_id: timedelta(seconds=5)}


def test_a_refused_task_for_which_nobody_has_room_does_not_rest() -> None:
    first, refused = tasks(2)

    found = pair([first, refused], [asker(ONE, 1)], {}, {refused.task_id: {ONE: timedelta(seconds=5)}})

    assert found.resting == {}
    assert len(found.pairs) == 1


def test_an_agent_gets_again_what_it_refused_long_ago() -> None:
    work = waiting(1)
    ago = {work.task_id: {ONE: REFUSAL_MEMORY + timedelta(seconds=1)}}

    assert paired([work], [asker(ONE)], refused=ago) == [ONE]


@given(
    rooms=st.lists(st.integers(0, 4), max_size=6),
    kinds=st.lists(st.tuples(st.sampled_from(["echo", "render"]), st.booleans()), max_size=20),
)
def test_nobody_gets_more_than_its_room_nor_what_it_cannot_do_and_no_room_is_left_for_what_waits(
    rooms: list[int], kinds: list[tuple[str, bool]]
) -> None:
    odd = aim(required_capabilities={"odd": True})
    askers = [
        asker(UUID(int=n + 1), room, takes=["echo"] if n % 3 else [], odd=bool(n % 2)) for n, room in enumerate(rooms)
    ]
    work = [
        waiting(number, work_type=work_type, aim=odd.key if is_odd else "")
        for number, (work_type, is_odd) in enumerate(kinds, 1)
    ]

    found = pair(work, askers, {odd.key: odd})

    got = Counter(to.agent_id for _, to in found.pairs)
    assert all(got[one.agent_id] <= one.room for one in askers)
    assert [task for task, _ in found.pairs] == [task for task in work if task in [one for one, _ in found.pairs]]
    for task, to in found.pairs:
        assert to in suitable(line_of(task), odd if task.aim else None, askers)
    left = {one.agent_id: one.room - got[one.agent_id] for one in askers}
    for task in work:
        if task not in [one for one, _ in found.pairs]:
            able = suitable(line_of(task), odd if task.aim else None, askers)
            assert all(left[one.agent_id] == 0 for one in able)
