"""An agent hands over only what was in a queue of its own."""

from uuid import UUID

import pytest
from pydantic import ValidationError

from common.broker.topology import control_queue, work_queue
from common.unreadable import Unreadable

AGENT = UUID(int=7)


def found_in(queue: str) -> Unreadable:
    return Unreadable(agent_id=AGENT, queue=queue, reason="torn", body="", body_bytes=0)


def test_a_message_of_the_agents_own_queues_is_reported() -> None:
    assert found_in(work_queue("infra", AGENT).name).pool == "infra"
    assert found_in(control_queue(AGENT).name).pool is None


@pytest.mark.parametrize(
    "queue",
    [
        work_queue("infra", UUID(int=8)).name,
        control_queue(UUID(int=8)).name,
        "work.infra",
        f"work.In.fra.{AGENT}",
        f"x.work.infra.{AGENT}",
        "dead",
    ],
)
def test_a_message_of_any_other_queue_is_not(queue: str) -> None:
    with pytest.raises(ValidationError, match="is none that agent"):
        found_in(queue)
