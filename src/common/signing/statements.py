"""What the orchestrator signs: a JSON text each, told apart by `use`, so that no signature counts for another purpose.

Unknown fields are refused: what a reader does not understand, it cannot check.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.canonical import work_digest
from common.confinement import UNCONFINED, Confinement
from common.messages import GrantedTask
from common.policy.model import Effect
from common.seal import Seal
from common.signing.keys import PrivateKey


class Statement(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SealedTask(Statement):
    """Everything that decides what one task may do; `digest` (hex) is that of `common.canonical.work_digest`."""

    task_id: UUID
    claim_id: UUID
    request_id: UUID
    trace_id: UUID
    attempt: int
    fence: int
    lease_seconds: float
    max_output_bytes: int | None
    digest: str
    target: str | None
    policy_version: str
    effect: Effect
    approval_id: UUID | None
    confinement: Confinement = UNCONFINED

    @staticmethod
    def of(grant: GrantedTask, *, digest: str | None = None) -> "SealedTask":
        """Return what must be signed of a grant; `digest`, where it was computed before."""
        # The grant was checked when it was made; checking it again would cost more than the signature.
        return SealedTask.model_construct(**sealed_values(grant, digest=digest))


class GrantStatement(Statement):
    """The agent `aud`, and no other, may start these tasks. `iat` and `exp` are seconds since 1970."""

    use: Literal["grant"] = "grant"
    aud: UUID
    iat: int
    exp: int
    tasks: tuple[SealedTask, ...] = Field(min_length=1)


class NamedKey(Statement):
    """A public key, as base64 of its 32 bytes."""

    key_id: str
    key: str


class KeysStatement(Statement):
    """The keys that sign from now on, and those that never count again."""

    use: Literal["keys"] = "keys"
    iat: int
    keys: tuple[NamedKey, ...]
    retired: tuple[str, ...] = ()


def sealed_values(grant: GrantedTask, *, digest: str | None = None) -> dict[str, Any]:
    """Return the same by the names of the fields. Raises TypeError and ValueError for work that has no digest."""
    return {
        "task_id": grant.work.task_id,
        "claim_id": grant.claim_id,
        "request_id": grant.request_id,
        "trace_id": grant.trace_id,
        "attempt": grant.attempt,
        "fence": grant.fence,
        "lease_seconds": grant.lease_seconds,
        "max_output_bytes": grant.max_output_bytes,
        "digest": digest_of(grant) if digest is None else digest,
        "target": grant.target,
        "policy_version": grant.policy_version,
        "effect": grant.effect,
        "approval_id": grant.approval_id,
        "confinement": grant.confinement,
    }


def digest_of(grant: GrantedTask) -> str:
    """Return the digest of what a grant lets run. Raises TypeError and ValueError for what has none."""
    work = grant.work
    return work_digest(
        work_type=work.work_type,
        parameters=work.parameters,
        hints=work.hints,
        target=grant.target or "",
        policy_version=grant.policy_version,
    ).hex()


def sign_grant(
    key: PrivateKey, agent_id: UUID, tasks: Sequence[SealedTask], *, now: datetime, valid: timedelta
) -> Seal:
    """Return one signature for all tasks of a message."""
    issued = int(now.timestamp())
    expires = issued + int(valid.total_seconds())
    return sign(key, GrantStatement.model_construct(aud=agent_id, iat=issued, exp=expires, tasks=tuple(tasks)))


def sign(key: PrivateKey, statement: Statement) -> Seal:
    text = statement.model_dump_json()
    return Seal(key_id=key.key_id, statement=text, signature=key.sign(text.encode()))
