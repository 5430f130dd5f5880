"""The circuit breaker in the ledger: part of the transactions in which attempts end."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from common.orders import Resume
from orchestrator.database.pool import Connection
from orchestrator.events.model import Kind, NewEvent
from orchestrator.outbox import queries as outbox
from orchestrator.outbox.model import NewOrder
from orchestrator.registry import queries
from orchestrator.registry.model import Standing
from orchestrator.registry.rules import BreakerPolicy, Count, Outcome, count_outcomes, standing_order

log = logging.getLogger(__name__)


async def record_outcomes(
    db: Connection, outcomes: Mapping[UUID, Sequence[Outcome]], *, policy: BreakerPolicy
) -> tuple[list[NewEvent], list[NewOrder]]:
    """Count how the attempts of these agents ended.

    Return the events, which the caller appends last, and the orders that are in the outbox now.

    An agent that trips, or is well again, is told so, for it would go on asking, or go on waiting.
    """
    if not outcomes:
        return [], []
    failing = [agent_id for agent_id, ends in outcomes.items() if any(end.infrastructure for end in ends)]
    standings = await queries.lock_for_breaker(db, list(outcomes), failing=failing)
    if not standings:
        return [], []
    now = await queries.now(db)
    counts = {
        agent_id: count_outcomes(standing, outcomes[agent_id], now=now, policy=policy)
        for agent_id, standing in standings.items()
    }
    await queries.set_breaker(
        db, [(agent_id, count.failures, count.until, count.reason) for agent_id, count in counts.items()]
    )
    orders = await _orders(db, standings, counts, now=now)
    await outbox.add_orders(db, orders)
    return [_tripped(agent_id, count) for agent_id, count in counts.items() if count.tripped], orders


async def _orders(
    db: Connection, standings: Mapping[UUID, Standing], counts: Mapping[UUID, Count], *, now: datetime
) -> list[NewOrder]:
    changed = [agent_id for agent_id, count in counts.items() if count.until != standings[agent_id].tripped_until]
    after = await queries.standings(db, changed) if changed else {}
    return [NewOrder(agent_id, standing_order(standing, now=now) or Resume()) for agent_id, standing in after.items()]


def _tripped(agent_id: UUID, count: Count) -> NewEvent:
    assert count.until is not None
    log.warning(
        "agent.tripped",
        extra={"agent_id": agent_id, "failures": count.failures, "until": count.until, "reason": count.reason},
    )
    about = {"failures": count.failures, "until": count.until.isoformat(), "reason": count.reason}
    return NewEvent(Kind.AGENT_TRIPPED, "orchestrator", about, agent_id=agent_id)
