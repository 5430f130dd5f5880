"""Put what the server answered where the agent listens: into its own queues, as the messages of a broker."""

from datetime import UTC, datetime

from agents.identity.registration import Identity
from common.broker.base import Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import control_address, control_queue, work_address, work_queue
from common.messages import Grant, GrantedTask
from common.orders import Control, Order
from common.protocol import ORCHESTRATOR, ControlEnvelope, WorkRequestEnvelope, decode, encode

READ_AT_ONCE = 100


class Inbox:
    """The queues of this agent, in this process."""

    def __init__(self, local: MemoryBroker, identity: Identity) -> None:
        self._local = local
        self._to_agent = str(identity.agent_id)
        self._control = control_queue(identity.agent_id)
        self._control_address = control_address(identity.agent_id)
        self._work = work_queue(identity.agent_type, identity.agent_id)
        self._work_address = work_address(identity.agent_type, identity.agent_id)

    async def put(self, order: Order, *, at: datetime | None = None) -> None:
        """Deliver an order; `at` is when it was given, by the clock of the server."""
        given_at = datetime.now(UTC) if at is None else at
        envelope = ControlEnvelope(
            from_agent=ORCHESTRATOR, to_agent=self._to_agent, timestamp=given_at, payload=Control(order=order)
        )
        await self._local.declare(self._control)
        await self._local.publish(Outgoing(self._control_address, encode(envelope), envelope.type))

    async def put_work(self, grant: Grant) -> None:
        """Deliver work."""
        [task] = grant.tasks
        envelope = WorkRequestEnvelope(
            from_agent=ORCHESTRATOR,
            to_agent=self._to_agent,
            trace_id=task.trace_id,
            request_id=task.request_id,
            payload=grant,
        )
        await self._local.declare(self._work)
        await self._local.publish(Outgoing(self._work_address, encode(envelope), envelope.type))

    async def take_unread_work(self) -> list[GrantedTask]:
        """Return the work that the agent did not read, and forget it."""
        unread: list[GrantedTask] = []
        async with self._local.consume(self._work.name, prefetch=READ_AT_ONCE) as consumer:
            while await self._local.depth(self._work.name):
                deliveries = await consumer.receive(READ_AT_ONCE)
                for envelope in (decode(delivery.body) for delivery in deliveries):
                    if isinstance(envelope, WorkRequestEnvelope):
                        unread += envelope.payload.tasks
                await consumer.ack(*deliveries)
        return unread
