"""Send leased tasks to their agents as `work_request` messages."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from uuid import UUID

from common.broker import topology
from common.broker.base import Broker, BrokerUnavailable, Outgoing, Unroutable
from common.messages import Grant
from common.protocol import ORCHESTRATOR, WorkRequestEnvelope, encode
from orchestrator.leases.grants import granted, not_delivered
from orchestrator.leases.model import Leased
from orchestrator.leases.service import LeaseService
from orchestrator.loops.agent_queues import give_queues
from orchestrator.loops.aside import Aside
from orchestrator.signing.signer import Signer

log = logging.getLogger(__name__)

# Maximum number of tasks in a message: their work, at its largest, still fits into one message of any broker.
TASKS_IN_A_MESSAGE = 64


class SendWork:
    """Does not wait for the broker. A grant that is lost is sent again when its agent is heard of next."""

    def __init__(self, leases: LeaseService, broker: Broker, signer: Signer | None, *, max_output_bytes: int) -> None:
        self._leases = leases
        self._broker = broker
        self._signer = signer
        self._max_output = max_output_bytes
        self._aside = Aside()

    def __call__(self, leased: Sequence[Leased]) -> None:
        """Have leased tasks sent soon."""
        if leased:
            self._aside.start(self.send(leased), name="send work")

    async def close(self) -> None:
        """Return when everything is sent, or left to others."""
        await self._aside.close()

    async def send(self, leased: Sequence[Leased]) -> None:
        """Send leased tasks, with one signature for each message; those of agents without a queue go back."""
        try:
            await self._broker.publish(*map(self._message, _together(leased)))
        except Unroutable:
            await self._send_each(leased)
        except BrokerUnavailable as error:
            log.warning("work.not_sent", extra={"tasks": len(leased), "reason": str(error)})

    async def _send_each(self, leased: Sequence[Leased]) -> None:
        """Send leased tasks, of which some were sent a moment ago; the agents without a queue get one."""
        without: list[Leased] = []
        for together in _together(leased):
            message = self._message([replace(one, again=True) for one in together])
            try:
                await self._broker.publish(message)
            except Unroutable:
                without += together
            except BrokerUnavailable as error:
                # The broker is away, so there is no point in going on.
                log.warning("work.not_sent", extra={"to": message.address.routing_key, "reason": str(error)})
                break
        if not without:
            return
        log.warning("work.undeliverable", extra={"tasks": len(without)})
        await give_queues(self._broker, {one.agent_id: one.task.agent_type for one in without})
        # What was sent in an earlier message may be with its agent: that lease ends by itself.
        undelivered = [
            not_delivered(one.agent_id, one.task.task_id, attempt=one.attempt) for one in without if not one.again
        ]
        if undelivered:
            await self._leases.accept(undelivered)

    def _message(self, leased: Sequence[Leased]) -> Outgoing:
        first = leased[0]
        tasks = [
            granted(
                one.task,
                one.claim_id,
                attempt=one.attempt,
                lease=one.lease,
                max_output_bytes=self._max_output,
            )
            for one in leased
        ]
        signature = None if self._signer is None else self._signer.sign(first.agent_id, tasks, credit=first.credit)
        envelope = WorkRequestEnvelope(
            from_agent=ORCHESTRATOR,
            to_agent=str(first.agent_id),
            priority=first.task.priority,
            payload=Grant(
                tasks=tasks,
                signature=signature,
                credit=first.credit,
                granted=max((one.granted for one in leased if one.granted is not None), default=None),
                again=first.again,
            ),
        )
        return Outgoing(
            topology.work_address(first.task.agent_type, first.agent_id),
            encode(envelope),
            type=envelope.type,
            priority=envelope.priority,
            message_id=envelope.message_id,
            expires_after=min(one.lease for one in leased),
            persistent=False,
        )


def _together(leased: Iterable[Leased]) -> list[list[Leased]]:
    """Put together what one message holds: tasks of one agent, one priority and one credit, in their order."""
    groups: dict[tuple[UUID, int, int | None, bool], list[Leased]] = defaultdict(list)
    for one in leased:
        groups[one.agent_id, one.task.priority, one.credit, one.again].append(one)
    return [
        group[begin : begin + TASKS_IN_A_MESSAGE]
        for group in groups.values()
        for begin in range(0, len(group), TASKS_IN_A_MESSAGE)
    ]
