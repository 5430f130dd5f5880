"""All SQL about identities and tokens: who a token belongs to, and whether it still counts."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from orchestrator.database.pool import Connection
from orchestrator.identities.model import Bearer, NewPrincipal, NewToken, Principal, Token

# A token counts while it and its owner do, by the database's clock.
BEARERS = """
    SELECT t.digest AS shown, p.principal_id, p.kind, p.name, p.roles, p.agent_id, t.token_id, t.purpose, t.scopes,
           t.created_by, t.makers, t.claimed_at, t.expires_at - now() AS remaining
      FROM token t JOIN principal p USING (principal_id)
     WHERE t.digest = ANY($1::bytea[]) AND t.purpose IN ('api', 'agent')
       AND t.revoked_at IS NULL AND p.disabled_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
"""

VALID = """
    SELECT t.token_id
      FROM token t JOIN principal p USING (principal_id)
     WHERE t.token_id = ANY($1)
       AND t.revoked_at IS NULL AND p.disabled_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
"""

NOTE_USE = """
    UPDATE token SET last_used_at = now()
     WHERE token_id = ANY($1) AND (last_used_at IS NULL OR last_used_at < now() - interval '10 seconds')
"""

ADD_TICKET = "INSERT INTO ws_ticket (digest, token_id, expires_at) VALUES ($1, $2, now() + $3)"

PRUNE_TICKETS = "DELETE FROM ws_ticket WHERE expires_at < now()"

# The row is gone with its first use, so that two at once cannot both have it.
USE_TICKETS = """
    WITH used AS (DELETE FROM ws_ticket WHERE digest = ANY($1::bytea[]) RETURNING digest, token_id, expires_at)
    SELECT used.digest AS shown, p.principal_id, p.kind, p.name, p.roles, p.agent_id, t.token_id, t.purpose, t.scopes,
           t.created_by, t.makers, t.claimed_at, t.expires_at - now() AS remaining
      FROM used JOIN token t USING (token_id) JOIN principal p USING (principal_id)
     WHERE used.expires_at > now() AND t.purpose IN ('api', 'agent')
       AND t.revoked_at IS NULL AND p.disabled_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
"""

ADD_PRINCIPAL = """
    INSERT INTO principal (principal_id, kind, name, roles, agent_id, agent_type, labels, created_by)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (name) DO NOTHING
    RETURNING *
"""

PRINCIPALS = "SELECT * FROM principal ORDER BY name"

PRINCIPAL = "SELECT * FROM principal WHERE principal_id = $1 FOR UPDATE"

PRINCIPAL_NAMED = "SELECT * FROM principal WHERE name = $1 FOR UPDATE"

DISABLE = "UPDATE principal SET disabled_at = now(), disabled_by = $2 WHERE principal_id = $1 RETURNING *"

ISSUE = """
    INSERT INTO token (token_id, principal_id, purpose, digest, scopes, note, created_by, expires_at, makers,
                       claimed_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, now() + $8, $9, CASE WHEN $10 THEN now() END)
    RETURNING *
"""

# What takes the place of a token is like it but for the secret.
REPLACE = """
    INSERT INTO token (token_id, principal_id, purpose, digest, scopes, note, created_by, expires_at, makers,
                       claimed_at)
    SELECT $2, principal_id, purpose, $3, scopes, note, created_by, expires_at, makers, now()
      FROM token
     WHERE token_id = $1
    RETURNING *
"""

ISSUED = """
    SELECT * FROM token
     WHERE ($1::uuid IS NULL OR principal_id = $1)
     ORDER BY created_at DESC, token_id
     LIMIT $2
"""

ISSUED_ONE = "SELECT * FROM token WHERE token_id = $1 FOR UPDATE"

REVOKE = "UPDATE token SET revoked_at = now(), revoked_by = $2 WHERE token_id = $1 RETURNING *"

REVOKE_ENROLMENTS = """
    UPDATE token SET revoked_at = now(), revoked_by = $2
     WHERE principal_id = $1 AND purpose = 'enrolment' AND used_at IS NULL AND revoked_at IS NULL
"""

# One UPDATE decides between two uses at the same moment.
USE_ENROLMENT = """
    UPDATE token t SET used_at = now()
      FROM principal p
     WHERE t.digest = $1 AND t.purpose = 'enrolment' AND p.principal_id = t.principal_id
       AND t.used_at IS NULL AND t.revoked_at IS NULL AND p.disabled_at IS NULL AND t.expires_at > now()
 RETURNING p.*
"""

IS_ENROLLED = "SELECT EXISTS (SELECT FROM token WHERE principal_id = $1 AND purpose = 'agent')"


async def find_bearers(db: Connection, digests: Collection[bytes]) -> dict[bytes, Bearer]:
    """Return the bearers of tokens by digest; unknown tokens, and those that do not count any more, are left out."""
    return {row["shown"]: Bearer.from_row(row) for row in await db.fetch(BEARERS, list(digests))}


async def valid(db: Connection, token_ids: Collection[UUID]) -> set[UUID]:
    """Return which of these tokens still count."""
    return {row["token_id"] for row in await db.fetch(VALID, list(token_ids))}


async def note_use(db: Connection, token_ids: Collection[UUID]) -> None:
    """Write down that tokens were used just now."""
    await db.execute(NOTE_USE, list(token_ids))


async def add_ticket(db: Connection, digest: bytes, token_id: UUID, *, lasts: timedelta) -> None:
    """Store a ticket, and forget those that ran out."""
    await db.execute(PRUNE_TICKETS)
    await db.execute(ADD_TICKET, digest, token_id, lasts)


async def use_tickets(db: Connection, digests: Collection[bytes]) -> dict[bytes, Bearer]:
    """Take tickets, which do not count after that; return the bearers of the tokens that they stand for, by ticket."""
    return {row["shown"]: Bearer.from_row(row) for row in await db.fetch(USE_TICKETS, list(digests))}


async def add_principal(db: Connection, new: NewPrincipal, *, by: str) -> Principal | None:
    """Store a principal; None when the name is taken."""
    row = await db.fetchrow(
        ADD_PRINCIPAL,
        new.principal_id,
        new.kind,
        new.name,
        sorted(new.roles),
        new.agent_id,
        new.agent_type,
        dict(new.labels),
        by,
    )
    return None if row is None else Principal.from_row(row)


async def principals(db: Connection) -> list[Principal]:
    """Return everybody, by name."""
    return [Principal.from_row(row) for row in await db.fetch(PRINCIPALS)]


async def lock_principal(db: Connection, principal_id: UUID) -> Principal | None:
    """Return a principal, locked."""
    row = await db.fetchrow(PRINCIPAL, principal_id)
    return None if row is None else Principal.from_row(row)


async def lock_named(db: Connection, name: str) -> Principal | None:
    """Return the principal of a name, locked."""
    row = await db.fetchrow(PRINCIPAL_NAMED, name)
    return None if row is None else Principal.from_row(row)


async def disable(db: Connection, principal_id: UUID, *, by: str) -> Principal:
    """Disable a principal that is locked."""
    row = await db.fetchrow(DISABLE, principal_id, by)
    assert row is not None, "it is locked"
    return Principal.from_row(row)


async def add_token(db: Connection, new: NewToken, *, by: str) -> Token:
    """Store a token by its digest."""
    scopes = None if new.scopes is None else sorted(new.scopes)
    row = await db.fetchrow(
        ISSUE,
        new.token_id,
        new.principal_id,
        new.purpose,
        new.digest,
        scopes,
        new.note,
        by,
        new.lasts,
        sorted(new.makers | {by}),
        new.claimed,
    )
    assert row is not None
    return Token.from_row(row)


async def replace_token(db: Connection, token_id: UUID, *, by_id: UUID, digest: bytes) -> Token:
    """Store a token that is claimed, with all that a locked one has but its secret."""
    row = await db.fetchrow(REPLACE, token_id, by_id, digest)
    assert row is not None, "it is locked"
    return Token.from_row(row)


async def tokens(db: Connection, *, principal_id: UUID | None, limit: int) -> list[Token]:
    """Return tokens, newest first, of everybody or of one principal."""
    return [Token.from_row(row) for row in await db.fetch(ISSUED, principal_id, limit)]


async def lock_token(db: Connection, token_id: UUID) -> Token | None:
    """Return a token, locked."""
    row = await db.fetchrow(ISSUED_ONE, token_id)
    return None if row is None else Token.from_row(row)


async def revoke(db: Connection, token_id: UUID, *, by: str) -> Token:
    """Revoke a token that is locked."""
    row = await db.fetchrow(REVOKE, token_id, by)
    assert row is not None, "it is locked"
    return Token.from_row(row)


async def revoke_enrolments(db: Connection, principal_id: UUID, *, by: str) -> None:
    """Revoke the enrolment tokens of an agent that were not used."""
    await db.execute(REVOKE_ENROLMENTS, principal_id, by)


async def use_enrolment(db: Connection, digest: bytes) -> Principal | None:
    """Use an enrolment token, which nobody can do after that; return whose it was, None when it does not count."""
    row = await db.fetchrow(USE_ENROLMENT, digest)
    return None if row is None else Principal.from_row(row)


async def is_enrolled(db: Connection, principal_id: UUID) -> bool:
    """Say whether an agent has got its credential."""
    found: bool = await db.fetchval(IS_ENROLLED, principal_id)
    return found
