"""The pool of an agent is fixed: that of its identity, or the one it registered with first where it has none.

Expand step: the old program goes on working beside it. Its heartbeats may not change the pool of an agent any more.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # Labels that an administrator vouches for: `registry.rules.believed_labels`.
    "ALTER TABLE principal ADD COLUMN labels jsonb NOT NULL DEFAULT '{}' CHECK (kind = 'agent' OR labels = '{}')",
    """
    CREATE OR REPLACE FUNCTION principal_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            RAISE EXCEPTION 'a principal is disabled, never deleted' USING ERRCODE = 'restrict_violation';
        END IF;
        IF (NEW.principal_id, NEW.kind, NEW.name) IS DISTINCT FROM (OLD.principal_id, OLD.kind, OLD.name)
           OR NEW.agent_id IS DISTINCT FROM OLD.agent_id
           OR (NEW.agent_type, NEW.labels) IS DISTINCT FROM (OLD.agent_type, OLD.labels) THEN
            RAISE EXCEPTION 'who a principal is does not change' USING ERRCODE = 'restrict_violation';
        END IF;
        IF OLD.disabled_at IS NOT NULL AND NEW.disabled_at IS DISTINCT FROM OLD.disabled_at THEN
            RAISE EXCEPTION 'a disabled principal does not return' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    UPDATE agent SET agent_type = principal.agent_type, labels = agent.labels - '{enforces,secrets}'::text[]
      FROM principal
     WHERE principal.agent_id = agent.agent_id
    """,
    # So every statement that gives work to agents needs the row of the agent only.
    """
    CREATE FUNCTION agent_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' AND NEW.agent_type <> OLD.agent_type
           OR EXISTS (SELECT FROM principal
                       WHERE principal.agent_id = NEW.agent_id AND principal.agent_type <> NEW.agent_type) THEN
            RAISE EXCEPTION 'the pool of an agent does not change' USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER agent_guard BEFORE INSERT OR UPDATE OF agent_type ON agent
        FOR EACH ROW EXECUTE FUNCTION agent_guard()
    """,
    # As before, but an agent that has not registered is not free: its pool is not known.
    """
    CREATE OR REPLACE FUNCTION agent_may_work(id uuid) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
        SELECT CASE
            WHEN EXISTS (SELECT FROM principal WHERE principal.agent_id = id AND principal.disabled_at IS NOT NULL)
            THEN 'shut_out'
            ELSE coalesce((
                SELECT CASE
                           WHEN agent.draining THEN 'draining'
                           WHEN agent.paused_until > now() THEN 'paused'
                           WHEN agent.clock_off_by IS NOT NULL THEN 'clock_off'
                           WHEN agent.tripped_until > now() THEN 'tripped'
                           WHEN agent.tripped_until IS NOT NULL THEN 'trial'
                           ELSE 'free'
                       END
                  FROM agent WHERE agent.agent_id = id), 'unregistered')
        END
    $$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
