"""One order for all ways to take a task, one predicate for agents, and tickets by the type of their work.

Expand step: the old program goes on working beside it. Its inserts get the rank from a trigger; its claims, which order
by priority alone, sort what waits, because the indexes now hold the new order.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # The lowest rank goes first, everywhere. A precedence of 0 is the priority 3. The limit keeps a rank within the
    # years that a program can read.
    """
    CREATE FUNCTION task_rank(created_at timestamptz, precedence bigint, ageing interval) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
        SELECT created_at - (3 + least(greatest(precedence, -100000), 100000)) * ageing
    $$
    """,
    # NULL for tasks that ended before there was a rank: no rewrite.
    "ALTER TABLE task ADD COLUMN rank timestamptz",
    # Tasks that wait get the rank of the default setting, `priority_ageing_seconds` = 600.
    """
    UPDATE task SET rank = task_rank(created_at, precedence, '10 minutes')
     WHERE status IN ('awaiting_approval', 'pending', 'running')
    """,
    """
    CREATE FUNCTION task_is_ranked() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.rank := task_rank(NEW.created_at, NEW.precedence, '10 minutes');
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER task_is_ranked BEFORE INSERT ON task FOR EACH ROW
        WHEN (NEW.rank IS NULL) EXECUTE FUNCTION task_is_ranked()
    """,
    "DROP INDEX task_claimable",
    """
    CREATE INDEX task_claimable ON task (agent_type, work_type, aim, rank, dispatch_no)
     WHERE status = 'pending' AND admitted
    """,
    "DROP INDEX task_next_of_concurrency_key",
    """
    CREATE INDEX task_next_of_concurrency_key ON task (concurrency_key, rank, dispatch_no)
     WHERE concurrency_key IS NOT NULL AND status = 'pending' AND first_in_order AND NOT admitted
    """,
    # The tickets of one type of work are a line of their own, so that those that no agent offers are passed over
    # without being read. This rewrites the table of tickets once.
    """
    ALTER TABLE outbox
        ADD COLUMN work_type text GENERATED ALWAYS AS (coalesce(body->'payload'->>'work_type', '')) STORED
    """,
    "DROP INDEX outbox_tickets_by_rank",
    "CREATE INDEX outbox_tickets_by_rank ON outbox (recipient, work_type, rank, id) WHERE kind = 'ticket'",
    # The one definition of whether an agent may be given work; `registry.rules.may_work` decides the same in Python,
    # and a test compares the two. An agent that never registered is free, unless its identity was disabled.
    """
    CREATE FUNCTION agent_may_work(id uuid) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
        SELECT CASE
            WHEN EXISTS (SELECT FROM principal WHERE principal.agent_id = id AND principal.disabled_at IS NOT NULL)
            THEN 'shut_out'
            ELSE coalesce((
                SELECT CASE
                           WHEN agent.draining THEN 'draining'
                           WHEN agent.paused_until > now() THEN 'paused'
                           WHEN agent.tripped_until > now() THEN 'tripped'
                           WHEN agent.tripped_until IS NOT NULL THEN 'trial'
                           ELSE 'free'
                       END
                  FROM agent WHERE agent.agent_id = id), 'free')
        END
    $$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
