"""Answer agents. An answer that cannot be delivered is not repeated: an agent that needs it asks again."""

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable, Outgoing, Unroutable
from common.messages import Lease, Renewed, Stored, WorkResult
from common.orders import ArtifactsStored, Control, FilePiece, Heard, Leave, Settle, StepsStored, TrustKeys
from common.protocol import ORCHESTRATOR, ControlEnvelope, encode

log = logging.getLogger(__name__)

# Answers expire after this; an agent that reconnects later asks again, or has lost its leases.
WORTH_KNOWING = timedelta(minutes=10)

Answer = Renewed | Stored | Heard | Leave | TrustKeys | StepsStored | Settle | ArtifactsStored | FilePiece


async def tell(broker: Broker, answers: Iterable[tuple[UUID, Answer]]) -> set[UUID]:
    """Send each answer to its agent; return the agents that have no queue, for which the others do not wait."""
    messages = [(agent_id, _message(agent_id, answer)) for agent_id, answer in answers]
    try:
        await broker.publish(*(message for _, message in messages))
    except Unroutable:
        return await _tell_each(broker, messages)
    except BrokerUnavailable as error:
        log.warning("answer.lost", extra={"answers": len(messages), "reason": str(error)})
    return set()


async def _tell_each(broker: Broker, messages: Sequence[tuple[UUID, Outgoing]]) -> set[UUID]:
    without_queue: set[UUID] = set()
    for agent_id, message in messages:
        try:
            await broker.publish(message)
        except Unroutable:
            log.info("answer.undeliverable", extra={"to": message.address.routing_key})
            without_queue.add(agent_id)
        except BrokerUnavailable as error:
            # The broker is away, so there is no point in going on.
            log.warning("answer.lost", extra={"to": message.address.routing_key, "reason": str(error)})
            break
    return without_queue


def stored(results: Sequence[WorkResult]) -> list[tuple[UUID, Stored]]:
    """Return for each agent the answer that its results are dealt with."""
    by_agent: dict[UUID, list[Lease]] = {}
    for result in results:
        by_agent.setdefault(result.agent_id, []).append(Lease(task_id=result.task_id, attempt=result.attempt))
    return [(agent_id, Stored(results=leases)) for agent_id, leases in by_agent.items()]


def _message(agent_id: UUID, answer: Answer) -> Outgoing:
    envelope = ControlEnvelope(from_agent=ORCHESTRATOR, to_agent=str(agent_id), payload=Control(order=answer))
    return Outgoing(
        topology.control_address(agent_id),
        encode(envelope),
        type=envelope.type,
        priority=envelope.priority,
        message_id=envelope.message_id,
        expires_after=WORTH_KNOWING,
        persistent=False,
    )
