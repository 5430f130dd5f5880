"""How an agent addresses what it has to say to the orchestrator."""

from datetime import timedelta
from uuid import UUID

from common.broker.base import Outgoing
from common.broker.topology import reply_address
from common.protocol import Envelope, encode


def reply(
    agent_id: UUID, queue: str, envelope: Envelope, *, is_repeated: bool, expires_after: timedelta | None = None
) -> Outgoing:
    """Return the message that brings an envelope from this agent to a reply queue.

    One that `is_repeated`, when nothing comes of it, need not survive a restart of the broker.
    """
    return Outgoing(
        reply_address(agent_id, queue),
        encode(envelope),
        envelope.type,
        priority=envelope.priority,
        expires_after=expires_after,
        persistent=not is_repeated,
    )
