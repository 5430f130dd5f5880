"""Which claim gets which of the tasks that wait: a pure decision."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from orchestrator.dispatch.standing import StandingClaim
from orchestrator.outbox.model import DueTask


def pair(
    waiting: Sequence[DueTask], claims: Sequence[StandingClaim], offered: Mapping[UUID, frozenset[str]]
) -> tuple[list[tuple[StandingClaim, DueTask]], list[StandingClaim]]:
    """Give the tasks, best first, to the claims in their order; return the pairs and the claims that are left.

    A task goes to an agent that `offered` its kind of work; what no claim fits waits on.
    """
    left = list(claims)
    pairs: list[tuple[StandingClaim, DueTask]] = []
    for task in waiting:
        if not left:
            break
        claim = next((one for one in left if task.work_type in offered.get(one.agent_id, ())), None)
        if claim is not None:
            left.remove(claim)
            pairs.append((claim, task))
    return pairs, left
