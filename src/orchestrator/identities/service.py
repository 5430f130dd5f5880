"""The use cases of identities and tokens, one transaction each: make them, look at them, take them away."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID, uuid4

from common.errors import Conflict, ErrorCode, NotFound
from common.rest.identities import Permission, PrincipalKind, Role, TokenPurpose
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.identities import queries
from orchestrator.identities.model import NewPrincipal, NewToken, Principal, Provenance, Token
from orchestrator.identities.rules import check_name, check_roles
from orchestrator.identities.tokens import digest_of, new_token

log = logging.getLogger(__name__)

FIRST_ROLES = frozenset({Role.ADMIN, Role.APPROVER})
BOOTSTRAP = "bootstrap"


class IdentityNotFound(NotFound):
    code = ErrorCode.IDENTITY_NOT_FOUND


class IdentityTaken(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"The name {name!r} is or was somebody's, and never becomes somebody else's. Choose another.")


class IdentityIsDisabled(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is disabled, and stays so.")


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was just made: the only moment in which anybody sees it."""

    token: Token
    secret: str = field(repr=False)


class IdentityService:
    """Knows people, services and agents, and gives out tokens. Of a token only the digest is kept."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(self, kind: PrincipalKind, name: str, roles: Iterable[Role], *, by: str) -> Principal:
        """Make a person or a service known. Raises `InvalidField` and `IdentityTaken`."""
        check_name(name)
        check_roles(kind, roles := frozenset(roles))
        async with transaction(self._pool) as db:
            principal = await add(db, NewPrincipal(uuid4(), kind, name, roles), by=by)
            await events.append(db, created(principal, by=by))
        log.info("identity.created", extra={"identity": name, "by": by})
        return principal

    async def everybody(self) -> list[Principal]:
        """Return everybody, by name."""
        async with self._pool.acquire() as db:
            return await queries.principals(db)

    async def disable(self, principal_id: UUID, *, by: str) -> Principal:
        """Let somebody do nothing more, for ever: all tokens stop to count. Raises `IdentityNotFound`."""
        async with transaction(self._pool) as db:
            principal = await self._lock(db, principal_id)
            if principal.disabled_at is not None:
                return principal
            principal = await queries.disable(db, principal_id, by=by)
            about = {"identity": principal.name, "principal_id": str(principal_id)}
            await events.append(db, NewEvent(Kind.IDENTITY_DISABLED, by, about, agent_id=principal.agent_id))
        log.info("identity.disabled", extra={"identity": principal.name, "by": by})
        return principal

    async def issue(
        self,
        principal_id: UUID,
        *,
        by: str,
        scopes: Iterable[Permission] | None = None,
        note: str = "",
        lasts: timedelta | None = None,
        with_token: Provenance | None = None,
    ) -> Issued:
        """Make a token of a person or a service. Raises `IdentityNotFound` and `IdentityIsDisabled`.

        `with_token` is the token of the one who makes it. One that its owner makes with a claimed token is claimed.
        """
        async with transaction(self._pool) as db:
            principal = await self._lock(db, principal_id)
            if principal.kind is PrincipalKind.AGENT:
                raise Conflict(f"{principal.name!r} is an agent, which gets its credential by enrolling.")
            only = None if scopes is None else frozenset(scopes)
            makers = frozenset() if with_token is None else with_token.makers
            is_own = by == principal.name and with_token is not None and with_token.claimed_at is not None
            issued = await issue(
                db,
                principal,
                TokenPurpose.API,
                by=by,
                scopes=only,
                note=note,
                lasts=lasts,
                makers=makers,
                claimed=is_own,
            )
            await events.append(db, token_created(principal, issued.token, by=by))
        log.info("token.created", extra={"token_id": issued.token.token_id, "identity": principal.name, "by": by})
        return issued

    async def claim(self, token_id: UUID) -> Issued:
        """Give the owner of a token another in its place, which nobody else has seen; the old one counts no more.

        It works once, also for two at the same moment. Raises `IdentityNotFound`, and `Conflict` for a token that was
        claimed or revoked before, or is not one of a person or a service.
        """
        async with transaction(self._pool) as db:
            old = await queries.lock_token(db, token_id)
            if old is None:
                raise IdentityNotFound(f"No token has the id {token_id}.")
            if old.purpose is not TokenPurpose.API:
                raise Conflict("Tokens of people and services are claimed; an agent gets its credential by enrolling.")
            if old.claimed_at is not None:
                raise Conflict("This token is claimed already: its owner alone knows it.")
            if old.revoked_at is not None:
                raise Conflict(f"This token was claimed or revoked before, by {old.revoked_by!r}.")
            owner = await self._lock(db, old.principal_id)
            secret = new_token(TokenPurpose.API)
            token = await queries.replace_token(db, token_id, by_id=uuid4(), digest=digest_of(secret))
            await queries.revoke(db, token_id, by=owner.name)
            about = {
                "token_id": str(token.token_id),
                "replaces": str(token_id),
                "identity": owner.name,
                "created_by": token.created_by,
            }
            await events.append(db, NewEvent(Kind.TOKEN_CLAIMED, owner.name, about))
        log.info("token.claimed", extra={"token_id": token.token_id, "identity": owner.name, "replaces": token_id})
        return Issued(token, secret)

    async def tokens(self, *, principal_id: UUID | None, limit: int) -> list[Token]:
        """Return what is known of the tokens, newest first."""
        async with self._pool.acquire() as db:
            return await queries.tokens(db, principal_id=principal_id, limit=limit)

    async def revoke(self, token_id: UUID, *, by: str) -> Token:
        """Let a token count no more: within a second, on open WebSockets too. Raises `IdentityNotFound`."""
        async with transaction(self._pool) as db:
            token = await queries.lock_token(db, token_id)
            if token is None:
                raise IdentityNotFound(f"No token has the id {token_id}.")
            if token.revoked_at is not None:
                return token
            token = await queries.revoke(db, token_id, by=by)
            about = {"token_id": str(token_id), "principal_id": str(token.principal_id)}
            await events.append(db, NewEvent(Kind.TOKEN_REVOKED, by, about))
        log.info("token.revoked", extra={"token_id": token_id, "by": by})
        return token

    async def bootstrap(self, name: str) -> Issued:
        """Make the first administrator, who may approve as well, and a token; for one who is there, a new token.

        Whoever can write to the database can do this: it asks nobody. Raises `InvalidField` and `IdentityIsDisabled`.
        """
        check_name(name)
        async with transaction(self._pool) as db:
            told: list[NewEvent] = []
            principal = await queries.lock_named(db, name)
            if principal is None:
                new = NewPrincipal(uuid4(), PrincipalKind.PERSON, name, FIRST_ROLES)
                principal = await add(db, new, by=BOOTSTRAP)
                told.append(created(principal, by=BOOTSTRAP))
            if principal.disabled_at is not None:
                raise IdentityIsDisabled(name)
            if principal.kind is not PrincipalKind.PERSON:
                raise IdentityTaken(name)
            issued = await issue(db, principal, TokenPurpose.API, by=BOOTSTRAP, note="first token", claimed=True)
            await events.append(db, *told, token_created(principal, issued.token, by=BOOTSTRAP))
        return issued

    async def is_good(self, secret: str) -> bool:
        """Say whether a token counts now."""
        async with self._pool.acquire() as db:
            return bool(await queries.find_bearers(db, [digest_of(secret)]))

    async def _lock(self, db: Connection, principal_id: UUID) -> Principal:
        principal = await queries.lock_principal(db, principal_id)
        if principal is None:
            raise IdentityNotFound(f"Nobody has the id {principal_id}.")
        return principal


async def add(db: Connection, new: NewPrincipal, *, by: str) -> Principal:
    """Store a principal, or raise `IdentityTaken`."""
    principal = await queries.add_principal(db, new, by=by)
    if principal is None:
        raise IdentityTaken(new.name)
    return principal


async def issue(
    db: Connection,
    principal: Principal,
    purpose: TokenPurpose,
    *,
    by: str,
    scopes: frozenset[Permission] | None = None,
    note: str = "",
    lasts: timedelta | None = None,
    makers: frozenset[str] = frozenset(),
    claimed: bool = False,
) -> Issued:
    """Store a new token of somebody who is locked, and return it. Raises `IdentityIsDisabled`."""
    if principal.disabled_at is not None:
        raise IdentityIsDisabled(principal.name)
    secret = new_token(purpose)
    new = NewToken(uuid4(), principal.principal_id, purpose, digest_of(secret), scopes, note, lasts, makers, claimed)
    return Issued(await queries.add_token(db, new, by=by), secret)


def created(principal: Principal, *, by: str) -> NewEvent:
    about = {
        "identity": principal.name,
        "principal_id": str(principal.principal_id),
        "kind": principal.kind,
        "roles": sorted(principal.roles),
        **({"agent_type": principal.agent_type, "labels": dict(principal.labels)} if principal.agent_id else {}),
    }
    return NewEvent(Kind.IDENTITY_CREATED, by, about, agent_id=principal.agent_id)


def token_created(principal: Principal, token: Token, *, by: str) -> NewEvent:
    """Return the event; it names the token by its id, and does not hold it."""
    about = {
        "token_id": str(token.token_id),
        "identity": principal.name,
        "purpose": token.purpose,
        "scopes": None if token.scopes is None else sorted(token.scopes),
        "note": token.note,
        "expires_at": None if token.expires_at is None else token.expires_at.isoformat(),
    }
    return NewEvent(Kind.TOKEN_CREATED, by, about, agent_id=principal.agent_id)
