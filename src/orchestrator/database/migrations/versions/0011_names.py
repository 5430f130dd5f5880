"""Names and labels of tasks, the identity that asked for each, and the result that an executor returned.

Expand step: the old program goes on working beside it, and looks at none of this.
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
    # Most tasks have neither, and pay for neither index.
    "CREATE INDEX task_name ON task (name, created_at DESC) WHERE name <> ''",
    "CREATE INDEX task_labels ON task USING gin (labels jsonb_path_ops) WHERE labels <> '{}'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
