"""Who somebody is: as a row, as the owner of a token, and as the caller of a request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from common.errors import ChiffonError, ErrorCode
from common.rest.identities import Permission, PrincipalKind, Role, TokenPurpose
from orchestrator.identities.permissions import permissions_of


class Unauthenticated(ChiffonError):
    """Nobody knows who asks."""

    code = ErrorCode.UNAUTHENTICATED


class Forbidden(ChiffonError):
    """Whoever asks is known, and may not do this."""

    code = ErrorCode.FORBIDDEN


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a token comes from.

    `makers` are `created_by` and the makers of the token with which it was made. `claimed_at` is since when its owner
    alone knows it; None while who made it does, too.
    """

    created_by: str
    makers: frozenset[str]
    claimed_at: datetime | None

    @property
    def known_to(self) -> frozenset[str]:
        """Who can have seen it: nobody but its owner, once it is claimed."""
        return self.makers if self.claimed_at is None else frozenset()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, as its token says. `name` is what events call the actor.

    All tokens of a person share its `principal_id`. `token_id` and `token` are None where nobody was asked for a token,
    `agent_id` for everybody but agents.
    """

    principal_id: UUID
    kind: PrincipalKind
    name: str
    roles: frozenset[Role]
    permissions: frozenset[Permission]
    token_id: UUID | None = None
    agent_id: UUID | None = None
    token: Provenance | None = None

    @property
    def is_known(self) -> bool:
        """Whether a token says who it is, or nobody is asked for one."""
        return self.token_id is not None or self is ANYBODY

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raise `Forbidden` unless the caller may do this."""
        if not self.may(permission):
            raise Forbidden(f"{self.name!r} may not do this: it needs the permission {permission.value!r}.")

    def require_agent(self, agent_id: UUID) -> None:
        """Raise `Forbidden` unless the caller is this agent, or nobody was asked who it is."""
        if self.agent_id != agent_id and self is not ANYBODY:
            raise Forbidden(f"{self.name!r} may speak for itself only: its id as an agent is {self.agent_id}.")


# Who calls where the settings ask nobody for a token; allowed on loopback only.
ANYBODY = Caller(
    principal_id=UUID(int=0),
    kind=PrincipalKind.SERVICE,
    name="anybody",
    roles=frozenset({Role.ADMIN, Role.AGENT, Role.APPROVER}),
    permissions=frozenset(Permission),
)


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who may use a token, and for how much longer at most; None is for as long as nobody revokes it."""

    caller: Caller
    purpose: TokenPurpose
    remaining: timedelta | None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Bearer":
        roles = frozenset(map(Role, row["roles"]))
        scopes = None if row["scopes"] is None else map(Permission, row["scopes"])
        caller = Caller(
            row["principal_id"],
            PrincipalKind(row["kind"]),
            row["name"],
            roles,
            permissions_of(roles, scopes),
            token_id=row["token_id"],
            agent_id=row["agent_id"],
            token=Provenance(row["created_by"], frozenset(row["makers"]), row["claimed_at"]),
        )
        return cls(caller, TokenPurpose(row["purpose"]), row["remaining"])


@dataclass(frozen=True, slots=True)
class NewPrincipal:
    """A new identity. Agents have an id as such, the pool that they belong to, and pinned labels."""

    principal_id: UUID
    kind: PrincipalKind
    name: str
    roles: frozenset[Role]
    agent_id: UUID | None = None
    agent_type: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Principal:
    """A person, a service or an agent. Who is disabled stays so, and keeps the name."""

    principal_id: UUID
    kind: PrincipalKind
    name: str
    roles: frozenset[Role]
    agent_id: UUID | None
    agent_type: str | None
    labels: Mapping[str, Any]
    created_at: datetime
    created_by: str
    disabled_at: datetime | None
    disabled_by: str | None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Principal":
        return cls(
            row["principal_id"],
            PrincipalKind(row["kind"]),
            row["name"],
            frozenset(map(Role, row["roles"])),
            row["agent_id"],
            row["agent_type"],
            row["labels"],
            row["created_at"],
            row["created_by"],
            row["disabled_at"],
            row["disabled_by"],
        )


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that is to be stored; `lasts` None is without an end, `scopes` None is all that its owner may.

    `makers` and `claimed`: see `Provenance`.
    """

    token_id: UUID
    principal_id: UUID
    purpose: TokenPurpose
    digest: bytes = field(repr=False)
    scopes: frozenset[Permission] | None = None
    note: str = ""
    lasts: timedelta | None = None
    makers: frozenset[str] = frozenset()
    claimed: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token, which is not the token."""

    token_id: UUID
    principal_id: UUID
    purpose: TokenPurpose
    scopes: frozenset[Permission] | None
    note: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    claimed_at: datetime | None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> "Token":
        return cls(
            row["token_id"],
            row["principal_id"],
            TokenPurpose(row["purpose"]),
            None if row["scopes"] is None else frozenset(map(Permission, row["scopes"])),
            row["note"],
            row["created_at"],
            row["created_by"],
            row["expires_at"],
            row["last_used_at"],
            row["used_at"],
            row["revoked_at"],
            row["revoked_by"],
            row["claimed_at"],
        )
