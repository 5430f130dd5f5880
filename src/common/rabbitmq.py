"""The exchanges and queues of Chiffon, declared on a channel of RabbitMQ."""

from collections.abc import Sequence

from aio_pika.abc import AbstractChannel
from pamqp.common import FieldTable

from common.broker.base import Queue, QueueType
from common.broker.topology import SHARED_QUEUES

HIGHEST_PRIORITY = 5


async def declare_queues(
    channel: AbstractChannel, queues: Sequence[Queue] = SHARED_QUEUES, *, queue_type: QueueType = QueueType.CLASSIC
) -> None:
    """Declare queues, the exchanges they are bound to, and the bindings; what exists already stays as it is.

    Without `queues`, those that all agents share. Raises aiormq's `AMQPChannelError` when RabbitMQ refuses, for
    instance because a queue exists with other arguments.
    """
    exchanges = {binding.exchange for queue in queues for binding in queue.bindings}
    for exchange in sorted(exchanges):
        await channel.declare_exchange(exchange.name, exchange.type.value, durable=True)
    for queue in queues:
        arguments: FieldTable = dict(queue_arguments(queue, queue_type))
        declared = await channel.declare_queue(queue.name, durable=True, arguments=arguments)
        for binding in queue.bindings:
            await declared.bind(binding.exchange.name, binding.routing_key)


def queue_arguments(queue: Queue, queue_type: QueueType) -> dict[str, str | int]:
    """Return the arguments that a queue is declared with; RabbitMQ refuses a declaration with others."""
    arguments: dict[str, str | int] = {"x-queue-type": queue_type.value}
    # Quorum queues refuse it: RabbitMQ 4 gives them priorities without it, earlier ones have none.
    if queue.has_priorities and queue_type is QueueType.CLASSIC:
        arguments["x-max-priority"] = HIGHEST_PRIORITY
    if queue.unused_for is not None:
        arguments["x-expires"] = int(queue.unused_for.total_seconds() * 1000)
    return arguments
