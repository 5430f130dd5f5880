"""What the orchestrator signs: JSON claims with the names of RFC 7519, each for one purpose and one audience.

Unknown fields are refused: what a reader does not understand, it cannot check.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.canonical import MAX_INTEGER, work_digest
from common.confinement import UNCONFINED, Confinement
from common.messages import GrantedTask
from common.policy.model import Effect
from common.signing.jws import Purpose, sign
from common.signing.keys import PrivateKey, PublicKey, UnusableKey


class Claims(BaseModel):
    """`iat` and `exp`, when it was signed and until when it counts, are seconds since 1970."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SignedTask(Claims):
    """Everything that decides what one task may do; `digest` (hex) is that of `common.canonical.work_digest`."""

    task_id: UUID
    claim_id: UUID
    request_id: UUID
    trace_id: UUID
    attempt: int
    lease_seconds: float
    max_output_bytes: int | None
    digest: str
    target: str | None
    policy_version: str
    effect: Effect
    approval_id: UUID | None
    confinement: Confinement = UNCONFINED

    @staticmethod
    def of(grant: GrantedTask, *, digest: str | None = None) -> "SignedTask":
        """Return what must be signed of a grant; `digest`, where it was computed before."""
        # The grant was checked when it was made; checking it again would cost more than the signature.
        return SignedTask.model_construct(**signed_values(grant, digest=digest))


class GrantClaims(Claims):
    """The agent `aud`, and no other, may start these tasks. `credit` is that of `common.messages.Grant`."""

    aud: UUID
    iat: int
    exp: int
    credit: int | None = None
    tasks: tuple[SignedTask, ...] = Field(min_length=1)


class NamedKey(Claims):
    """A public key as a JSON Web Key (RFC 8037); `x` is base64url of its 32 bytes."""

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    kid: str
    x: str

    @classmethod
    def of(cls, key: PublicKey) -> Self:
        return cls(kid=key.key_id, x=urlsafe_b64encode(key.raw).decode().rstrip("="))

    @property
    def key(self) -> PublicKey:
        """The key itself; raises `UnusableKey`."""
        try:
            key = PublicKey(urlsafe_b64decode(self.x + "="))
        except ValueError:
            raise UnusableKey("x is not base64url") from None
        if key.key_id != self.kid:
            raise UnusableKey(f"the key {self.kid} has the name of another")
        return key


class KeyClaims(Claims):
    """The keys that sign from now on, for every agent, and those that never count again."""

    aud: Literal["chiffon-agents"] = "chiffon-agents"
    iat: int
    exp: int
    keys: tuple[NamedKey, ...]
    retired: tuple[str, ...] = ()


class CheckpointClaims(Claims):
    """At `iat` the audit log's chain reached the event `seq`, whose hash (hex) is `hash`. It never expires."""

    aud: Literal["chiffon-auditors"] = "chiffon-auditors"
    iat: int = Field(ge=0)
    seq: int = Field(ge=0, le=MAX_INTEGER)
    hash: str = Field(pattern="^[0-9a-f]{64}$")


def signed_values(grant: GrantedTask, *, digest: str | None = None) -> dict[str, Any]:
    """Return the same by the names of the fields. Raises TypeError and ValueError for work that has no digest."""
    return {
        "task_id": grant.work.task_id,
        "claim_id": grant.claim_id,
        "request_id": grant.request_id,
        "trace_id": grant.trace_id,
        "attempt": grant.attempt,
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
    key: PrivateKey,
    agent_id: UUID,
    tasks: Sequence[SignedTask],
    *,
    now: datetime,
    valid: timedelta,
    credit: int | None = None,
) -> str:
    """Return one signature for all tasks of a message."""
    issued = int(now.timestamp())
    expires = issued + int(valid.total_seconds())
    claims = GrantClaims.model_construct(aud=agent_id, iat=issued, exp=expires, credit=credit, tasks=tuple(tasks))
    return sign(key, Purpose.GRANT, claims.model_dump_json())


def out_of_date(claims: GrantClaims | KeyClaims, *, now: datetime, skew: timedelta) -> str | None:
    """Return why a signature does not count at this time; None when it does. Clocks may differ by `skew`."""
    at, tolerance = now.timestamp(), skew.total_seconds()
    if at > claims.exp + tolerance:
        return f"its signature expired {at - claims.exp:.0f} s ago by this host's clock"
    if at < claims.iat - tolerance:
        return f"it was signed {claims.iat - at:.0f} s in the future by this host's clock"
    return None
