"""Send what was dispatched just now: tickets to their pools, and grants to the agents that are idle."""

import logging
from collections.abc import Sequence
from uuid import UUID

from common.broker.base import Broker
from common.errors import ErrorCode
from common.messages import Grant, GrantedTask, ResultStatus, WorkResult
from orchestrator.dispatch.service import Dispatched
from orchestrator.leases.service import LeaseService
from orchestrator.loops.aside import Aside
from orchestrator.loops.relay_outbox import RelayOutbox
from orchestrator.loops.tell import tell
from orchestrator.signing.signer import Signer

log = logging.getLogger(__name__)


class SendNew:
    """Does not wait for the broker. A grant that is lost is asked for again by the agent that claimed in advance."""

    def __init__(
        self, relay: RelayOutbox, leases: LeaseService, broker: Broker, signer: Signer | None, *, most_standing: int
    ) -> None:
        self._relay = relay
        self._leases = leases
        self._broker = broker
        self._signer = signer
        self._most_standing = most_standing
        self._aside = Aside()

    def __call__(self, done: Dispatched) -> None:
        """Have it sent soon."""
        if done.tickets:
            self._relay.publish_soon(done.tickets)
        if done.grants:
            self._aside.start(self._grant(done.grants), name="send new grants")

    async def close(self) -> None:
        """Return when everything is sent, or left to others."""
        await self._aside.close()
        await self._relay.close()

    async def _grant(self, grants: Sequence[tuple[UUID, GrantedTask]]) -> None:
        by_agent: dict[UUID, list[GrantedTask]] = {}
        for agent_id, grant in grants:
            by_agent.setdefault(agent_id, []).append(grant)
        answers = [(agent_id, Grant(tasks=tasks)) for agent_id, tasks in by_agent.items()]
        without_queue = await tell(self._broker, answers, signer=self._signer, most_standing=self._most_standing)
        if undelivered := [_not_delivered(agent_id, grant) for agent_id, grant in grants if agent_id in without_queue]:
            log.warning("grant.undeliverable", extra={"grants": len(undelivered)})
            await self._leases.accept(undelivered)


def _not_delivered(agent_id: UUID, grant: GrantedTask) -> WorkResult:
    """Return what the agent would say that hands a task back untouched: it was never there."""
    return WorkResult(
        task_id=grant.work.task_id,
        status=ResultStatus.FAILED,
        error_message="The agent has no queue any more, so it never got the grant.",
        error_code=ErrorCode.AGENT_UNAVAILABLE,
        duration_ms=0,
        agent_id=agent_id,
        attempt=grant.attempt,
        fence=grant.fence,
        retryable=True,
        started=False,
    )
