"""Policy and approvals: by which rule each task may run, and who said yes to it.

Expand step: the old program goes on working beside it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # By which rule a task may run, and the digest of exactly what may (`common.canonical.work_digest`); it is NULL for
    # tasks from before there were policies.
    """
    ALTER TABLE task
        ADD COLUMN effect         text  NOT NULL DEFAULT 'write' CHECK (effect IN ('read', 'write')),
        ADD COLUMN policy_rule    text  NOT NULL DEFAULT '',
        ADD COLUMN policy_version text  NOT NULL DEFAULT '',
        ADD COLUMN work_digest    bytea CHECK (length(work_digest) = 32),
        ADD COLUMN confinement    jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN approval_id    uuid
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
