"""What agents that claimed are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from common.messages import Claim, ClaimedTask, Grant, GrantedTask, Refusal, RefusedTask


@dataclass(frozen=True, slots=True)
class Answer:
    """What an agent that claimed is told; either part is None when it is empty."""

    agent_id: UUID
    grant: Grant | None
    refusal: Refusal | None


def answers(
    claims: Sequence[Claim],
    grants: Mapping[UUID, list[GrantedTask]],
    refusals: Mapping[UUID, list[RefusedTask]],
) -> list[Answer]:
    """Return one answer for each agent that claimed."""
    return [
        Answer(
            agent_id,
            Grant(tasks=grants[agent_id]) if agent_id in grants else None,
            Refusal(tasks=refusals[agent_id]) if agent_id in refusals else None,
        )
        for agent_id in dict.fromkeys(claim.agent_id for claim in claims)
    ]


def refused(claim: ClaimedTask, reason: str) -> RefusedTask:
    return RefusedTask(claim_id=claim.claim_id, task_id=claim.task_id, reason=reason)
