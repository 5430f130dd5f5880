"""What an orchestrator remembers of the leases that it gave."""

from uuid import uuid4

import pytest

from orchestrator.leases.given import GivenLeases
from tests.factories import make_new_task, make_result

pytestmark = pytest.mark.path_internals

AGENT = uuid4()


def test_a_result_is_told_with_what_was_known_when_its_lease_was_given() -> None:
    task, given = make_new_task(), GivenLeases()
    given.add(task, AGENT, attempt=1)

    lease = given.take(make_result(task.task_id, AGENT))

    assert lease is not None
    assert (lease.task_id, lease.trace_id, lease.request_id) == (task.task_id, task.trace_id, task.request_id)
    assert (lease.agent_id, lease.attempt) == (AGENT, 1)
    assert (lease.effect, lease.work_digest, lease.approval_id) == (task.effect, task.work_digest, task.approval_id)


def test_only_the_first_result_of_a_lease_belongs_to_it() -> None:
    task, given = make_new_task(), GivenLeases()
    given.add(task, AGENT, attempt=1)

    assert given.take(make_result(task.task_id, AGENT)) is not None
    assert given.take(make_result(task.task_id, AGENT)) is None


@pytest.mark.parametrize("differs", [{"attempt": 2}, {"agent_id": uuid4()}], ids=["attempt", "agent"])
def test_a_result_of_another_lease_takes_none(differs: dict[str, object]) -> None:
    task, given = make_new_task(), GivenLeases()
    given.add(task, AGENT, attempt=1)

    assert given.take(make_result(task.task_id, AGENT).model_copy(update=differs)) is None
    assert given.take(make_result(task.task_id, AGENT)) is not None


def test_a_later_lease_of_a_task_takes_the_place_of_the_earlier_one() -> None:
    task, given = make_new_task(), GivenLeases()
    given.add(task, AGENT, attempt=1)
    given.add(task, AGENT, attempt=2)

    assert given.take(make_result(task.task_id, AGENT)) is None
    assert given.take(make_result(task.task_id, AGENT).model_copy(update={"attempt": 2})) is not None


@pytest.mark.parametrize("key", ["ordering_key", "concurrency_key"])
def test_a_task_with_keys_is_read_for_its_end_concerns_others(key: str) -> None:
    task, given = (
        make_new_task(**{key: "web-1"}, concurrency_limit=1 if key == "concurrency_key" else None),
        GivenLeases(),
    )
    given.add(task, AGENT, attempt=1)

    assert given.take(make_result(task.task_id, AGENT)) is None


def test_the_oldest_leases_are_forgotten_first() -> None:
    first, second, third = (make_new_task() for _ in range(3))
    given = GivenLeases(most=2)
    for task in (first, second, third):
        given.add(task, AGENT, attempt=1)

    assert given.take(make_result(first.task_id, AGENT)) is None
    assert given.take(make_result(second.task_id, AGENT)) is not None
    assert given.take(make_result(third.task_id, AGENT)) is not None
