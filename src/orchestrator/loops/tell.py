"""Answer agents. An answer that cannot be delivered is not repeated: who needs it asks again."""

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import UUID

from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable, Outgoing, Unroutable
from common.messages import Grant, Lease, Refusal, Renewed, Stored, WorkResult
from common.orders import Control, Heard, TrustKeys
from common.protocol import ORCHESTRATOR, ControlEnvelope, Envelope, GrantEnvelope, RefusalEnvelope, encode
from orchestrator.signing.signer import Signer

log = logging.getLogger(__name__)

# Who comes back later than this asks anew, or has lost its leases.
WORTH_KNOWING = timedelta(minutes=10)

# The work of so many tasks, at its largest, still fits into one message of any broker.
GRANTS_IN_A_MESSAGE = 16

Answer = Grant | Refusal | Renewed | Stored | Heard | TrustKeys


async def tell(
    broker: Broker,
    answers: Iterable[tuple[UUID, Answer]],
    *,
    signer: Signer | None = None,
    most_standing: int = 0,
) -> set[UUID]:
    """Send each answer to its agent, with one signature over all that a message grants.

    `most_standing` is how many claims an agent that gets a grant may make in advance.

    Return the agents that have no queue; the others do not wait for them.
    """
    messages = [
        (agent_id, _message(agent_id, part))
        for agent_id, answer in answers
        for part in _parts(agent_id, answer, signer, most_standing)
    ]
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
        by_agent.setdefault(result.agent_id, []).append(Lease(task_id=result.task_id, fence=result.fence))
    return [(agent_id, Stored(results=leases)) for agent_id, leases in by_agent.items()]


def _parts(agent_id: UUID, answer: Answer, signer: Signer | None, most_standing: int) -> list[Answer]:
    if not isinstance(answer, Grant):
        return [answer]
    cut = [
        answer.tasks[begin : begin + GRANTS_IN_A_MESSAGE] for begin in range(0, len(answer.tasks), GRANTS_IN_A_MESSAGE)
    ]
    return [
        Grant(
            tasks=tasks,
            signature=None if signer is None else signer.sign(agent_id, tasks),
            most_standing=most_standing,
        )
        for tasks in cut
    ]


def _message(agent_id: UUID, answer: Answer) -> Outgoing:
    envelope = _envelope(str(agent_id), answer)
    return Outgoing(
        topology.control_address(agent_id),
        encode(envelope),
        type=envelope.type,
        priority=envelope.priority,
        message_id=envelope.message_id,
        expires_after=WORTH_KNOWING,
        persistent=False,
    )


def _envelope(agent_id: str, answer: Answer) -> Envelope:
    match answer:
        case Grant():
            return GrantEnvelope(from_agent=ORCHESTRATOR, to_agent=agent_id, payload=answer)
        case Refusal():
            return RefusalEnvelope(from_agent=ORCHESTRATOR, to_agent=agent_id, payload=answer)
        case _:
            return ControlEnvelope(from_agent=ORCHESTRATOR, to_agent=agent_id, payload=Control(order=answer))
