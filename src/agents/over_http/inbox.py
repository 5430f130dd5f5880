"""Put what the server answered where the agent listens: into its control queue, as the messages of a broker."""

from datetime import UTC, datetime
from uuid import UUID

from common.broker.base import Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import control_address, control_queue
from common.messages import Grant, Refusal
from common.orders import Control, Order
from common.protocol import ORCHESTRATOR, ControlEnvelope, GrantEnvelope, RefusalEnvelope, encode


class Inbox:
    """The control queue of this agent, in this process."""

    def __init__(self, local: MemoryBroker, agent_id: UUID) -> None:
        self._local = local
        self._agent_id = agent_id

    async def put(self, message: Grant | Refusal | Order, *, at: datetime | None = None) -> None:
        """Deliver a message; `at` is when it was said, by the clock of the server."""
        envelope = self._envelope(message, datetime.now(UTC) if at is None else at)
        await self._local.declare(control_queue(self._agent_id))
        await self._local.publish(Outgoing(control_address(self._agent_id), encode(envelope), envelope.type))

    def _envelope(
        self, message: Grant | Refusal | Order, at: datetime
    ) -> GrantEnvelope | RefusalEnvelope | ControlEnvelope:
        to = str(self._agent_id)
        match message:
            case Grant():
                return GrantEnvelope(from_agent=ORCHESTRATOR, to_agent=to, timestamp=at, payload=message)
            case Refusal():
                return RefusalEnvelope(from_agent=ORCHESTRATOR, to_agent=to, timestamp=at, payload=message)
            case _:
                control = Control(order=message)
                return ControlEnvelope(from_agent=ORCHESTRATOR, to_agent=to, timestamp=at, payload=control)
