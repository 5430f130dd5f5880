"""How queues are declared at RabbitMQ."""

from uuid import UUID

from common.broker.base import QueueType
from common.broker.topology import control_queue, work_queue
from common.rabbitmq import queue_arguments

DAY = 24 * 60 * 60 * 1000
AGENT = UUID(int=1)


def test_a_classic_queue_of_work_has_five_priorities() -> None:
    assert queue_arguments(work_queue("infra", AGENT), QueueType.CLASSIC) == {
        "x-queue-type": "classic",
        "x-max-priority": 5,
        "x-expires": DAY,
    }


def test_a_quorum_queue_is_never_declared_with_priorities() -> None:
    assert queue_arguments(work_queue("infra", AGENT), QueueType.QUORUM) == {"x-queue-type": "quorum", "x-expires": DAY}


def test_the_queues_of_an_agent_expire_whatever_their_type() -> None:
    assert {queue_arguments(control_queue(AGENT), kind)["x-expires"] for kind in QueueType} == {DAY}
