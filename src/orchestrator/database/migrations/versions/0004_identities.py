"""Identities: people, services and agents, and their tokens.

Expand step: the old program goes on working beside it.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # Approvers are people: what a program holds a token for, it would approve. An agent is an agent and nothing else.
    """
    CREATE TABLE principal (
        principal_id uuid        PRIMARY KEY,
        kind         text        NOT NULL CHECK (kind IN ('person', 'service', 'agent')),
        name         text        NOT NULL UNIQUE CHECK (name <> ''),
        roles        text[]      NOT NULL,
        agent_id     uuid        UNIQUE,
        agent_type   text,
        created_at   timestamptz NOT NULL DEFAULT now(),
        created_by   text        NOT NULL,
        disabled_at  timestamptz,
        disabled_by  text,
        CHECK (CASE kind WHEN 'agent' THEN roles = '{agent}' AND agent_id IS NOT NULL AND agent_type IS NOT NULL
                         ELSE NOT 'agent' = ANY (roles) AND agent_id IS NULL AND agent_type IS NULL END),
        CHECK (kind = 'person' OR NOT 'approver' = ANY (roles)),
        CHECK (roles <@ '{viewer,operator,approver,admin,agent}')
    )
    """,
    # Who is gone stays in the table, so that a name or the id of an agent never means somebody else later.
    """
    CREATE FUNCTION principal_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            RAISE EXCEPTION 'a principal is disabled, never deleted' USING ERRCODE = 'restrict_violation';
        END IF;
        IF (NEW.principal_id, NEW.kind, NEW.name) IS DISTINCT FROM (OLD.principal_id, OLD.kind, OLD.name)
           OR NEW.agent_id IS DISTINCT FROM OLD.agent_id THEN
            RAISE EXCEPTION 'who a principal is does not change' USING ERRCODE = 'restrict_violation';
        END IF;
        IF OLD.disabled_at IS NOT NULL AND NEW.disabled_at IS DISTINCT FROM OLD.disabled_at THEN
            RAISE EXCEPTION 'a disabled principal does not return' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER principal_guard BEFORE UPDATE OR DELETE ON principal
        FOR EACH ROW EXECUTE FUNCTION principal_guard()
    """,
    # `digest` is the SHA-256 of the token, which itself is nowhere. `scopes` NULL: all that its principal may.
    """
    CREATE TABLE token (
        token_id     uuid        PRIMARY KEY,
        principal_id uuid        NOT NULL REFERENCES principal,
        purpose      text        NOT NULL CHECK (purpose IN ('api', 'agent', 'enrolment')),
        digest       bytea       NOT NULL UNIQUE CHECK (length(digest) = 32),
        scopes       text[],
        note         text        NOT NULL DEFAULT '',
        created_at   timestamptz NOT NULL DEFAULT now(),
        created_by   text        NOT NULL,
        expires_at   timestamptz,
        last_used_at timestamptz,
        used_at      timestamptz,
        revoked_at   timestamptz,
        revoked_by   text,
        CHECK (purpose <> 'enrolment' OR expires_at IS NOT NULL)
    )
    """,
    "CREATE INDEX token_principal ON token (principal_id)",
    # What opens one WebSocket of a browser, which can send no header: used once, within seconds, and then deleted.
    """
    CREATE TABLE ws_ticket (
        digest     bytea       PRIMARY KEY CHECK (length(digest) = 32),
        token_id   uuid        NOT NULL REFERENCES token,
        expires_at timestamptz NOT NULL
    )
    """,
    """
    CREATE FUNCTION identity_tell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('chiffon_identity', '');
        RETURN NULL;
    END $$
    """,
    # Not at `last_used_at`, which changes all the time and changes nothing.
    """
    CREATE TRIGGER principal_tell AFTER UPDATE OF disabled_at, roles ON principal
        FOR EACH STATEMENT EXECUTE FUNCTION identity_tell()
    """,
    """
    CREATE TRIGGER token_tell AFTER UPDATE OF revoked_at, expires_at, scopes ON token
        FOR EACH STATEMENT EXECUTE FUNCTION identity_tell()
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
