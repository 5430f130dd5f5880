"""Answer agents that ask for tasks."""

from collections.abc import Sequence
from uuid import UUID

from pydantic import BaseModel

from common.broker import topology
from common.broker.base import Broker, Outgoing
from common.loop import Wake
from common.messages import Claim, Grant, Refusal
from common.protocol import ORCHESTRATOR, GrantEnvelope, RefusalEnvelope, encode
from orchestrator.leases.service import Answer, LeaseService


class ConsumeClaims:
    """Leases tasks and sends the grants. An answer that is lost is asked for again by the agent."""

    queue = topology.CLAIMS
    accepts: tuple[type[BaseModel], ...] = (Claim,)

    def __init__(self, leases: LeaseService, broker: Broker, relay: Wake) -> None:
        self._leases = leases
        self._broker = broker
        self._relay = relay

    async def handle(self, payloads: Sequence[BaseModel]) -> None:
        answers = await self._leases.claim([payload for payload in payloads if isinstance(payload, Claim)])
        await self._broker.publish(*(message for answer in answers for message in _messages(answer)))
        # Tickets were used up, so the window has room for more.
        self._relay.ring()


def _messages(answer: Answer) -> list[Outgoing]:
    return [_message(answer.agent_id, payload) for payload in (answer.grant, answer.refusal) if payload is not None]


def _message(agent_id: UUID, payload: Grant | Refusal) -> Outgoing:
    envelope = (
        GrantEnvelope(from_agent=ORCHESTRATOR, to_agent=str(agent_id), payload=payload)
        if isinstance(payload, Grant)
        else RefusalEnvelope(from_agent=ORCHESTRATOR, to_agent=str(agent_id), payload=payload)
    )
    return Outgoing(
        topology.control_address(agent_id),
        encode(envelope),
        type=envelope.type,
        priority=envelope.priority,
        message_id=envelope.message_id,
    )
