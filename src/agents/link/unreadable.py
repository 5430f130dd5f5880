"""What an agent does with messages that it cannot read: it hands them to the orchestrator, which keeps them.

An agent may write replies and nothing else, so it cannot move a message to the dead letters by itself.
"""

import base64
from uuid import UUID

from agents.link.replies import reply
from common.broker.base import Broker, Consumer, Delivery
from common.broker.topology import RESULTS
from common.protocol import ORCHESTRATOR, UnreadableEnvelope
from common.unreadable import MAX_REASON, MAX_UNREADABLE_BYTES, Unreadable


class Undertaker:
    """Reports unreadable messages, once each; the orchestrator knows a repeated report by its message id."""

    def __init__(self, broker: Broker, agent_id: UUID) -> None:
        self._broker = broker
        self._agent_id = agent_id

    async def bury(self, consumer: Consumer, delivery: Delivery, reason: str, *, queue: str) -> None:
        """Report a message and forget it. Raises `BrokerUnavailable`; then it will be delivered again."""
        envelope = UnreadableEnvelope(
            from_agent=str(self._agent_id),
            to_agent=ORCHESTRATOR,
            payload=Unreadable(
                agent_id=self._agent_id,
                queue=queue,
                reason=reason[:MAX_REASON],
                message_id=delivery.message_id[:255],
                priority=delivery.priority,
                body=base64.b64encode(delivery.body[:MAX_UNREADABLE_BYTES]).decode(),
                body_bytes=len(delivery.body),
            ),
        )
        # Stored before the original goes: a crash in between reports it twice, the other way round never.
        await self._broker.publish(reply(self._agent_id, RESULTS, envelope, is_repeated=False))
        await consumer.ack(delivery)
