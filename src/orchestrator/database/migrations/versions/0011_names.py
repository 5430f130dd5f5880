"""Names and labels of tasks, the identity that asked for each, the result that an executor returned, fan-outs,
the schemas that agents announce, and tasks that every host refuses, which wait on, however often they were handed back.

Expand step: the old program goes on working beside it, looks at none of this, and fails such a
task after a hundred times, as before.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    """
    ALTER TABLE task
        ADD COLUMN name         text  NOT NULL DEFAULT '',
        ADD COLUMN labels       jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN requested_by text,
        ADD COLUMN result       jsonb
    """,
    # The bound before was narrower, so that every row keeps this one and none is looked at.
    """
    ALTER TABLE task
        DROP CONSTRAINT task_unstarted_check,
        ADD CONSTRAINT task_unstarted_check CHECK (unstarted >= 0) NOT VALID
    """,
    # Most tasks have neither, and pay for neither index.
    "CREATE INDEX task_name ON task (name, created_at DESC) WHERE name <> ''",
    "CREATE INDEX task_labels ON task USING gin (labels jsonb_path_ops) WHERE labels <> '{}'",
    # The tasks of one fan-out share a concurrency key. After so many of them have failed, none of the rest is admitted.
    "CREATE INDEX task_fan_out ON task (concurrency_key) WHERE concurrency_key LIKE 'fan-out:%'",
    "ALTER TABLE concurrency_limit ADD COLUMN stop_after integer CHECK (stop_after > 0)",
    # JSON Schemas of the parameters of an agent's own work types.
    "ALTER TABLE agent ADD COLUMN schemas jsonb NOT NULL DEFAULT '{}'",
    # An agent has the name under which it enrolled, and else that of its host.
    """
    CREATE FUNCTION agent_name(id uuid) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
        SELECT coalesce((SELECT name FROM principal WHERE principal.agent_id = id),
                        (SELECT hostname FROM agent WHERE agent.agent_id = id))
    $$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
