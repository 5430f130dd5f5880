"""Agents ask for work by credit; a pending task row is the queue, and the outbox holds orders only.

Not beside the old program: stop every orchestrator first. Tasks that wait go on waiting, retries until they are due,
and running ones keep their leases; agents of earlier versions report what they run and are told to upgrade.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # A task that waits may be leased from then on; NULL: at once. It is NULL again once that time has come.
    "ALTER TABLE task ADD COLUMN not_before timestamptz",
    """
    UPDATE task SET not_before = outbox.due_at
      FROM outbox
     WHERE outbox.kind = 'ticket' AND outbox.task_id = task.task_id AND outbox.published_at IS NULL
       AND outbox.due_at > now() AND task.status = 'pending'
    """,
    # `boot_id` is the agent's session. The session may have been granted `credit_limit` tasks in all, and was granted
    # `granted`, of which `lost` never came to it; `credit_number` is the number of its newest message.
    """
    ALTER TABLE agent
        ADD COLUMN credit_number bigint NOT NULL DEFAULT 0 CHECK (credit_number >= 0),
        ADD COLUMN credit_limit  bigint NOT NULL DEFAULT 0 CHECK (credit_limit >= 0),
        ADD COLUMN granted       bigint NOT NULL DEFAULT 0 CHECK (granted >= 0),
        ADD COLUMN lost          bigint NOT NULL DEFAULT 0 CHECK (lost >= 0)
    """,
    "DELETE FROM outbox WHERE kind = 'ticket'",
    # With the columns go their indexes and checks.
    """
    ALTER TABLE outbox
        DROP COLUMN kind, DROP COLUMN work_type, DROP COLUMN rank, DROP COLUMN placed_on, DROP COLUMN published_at
    """,
    "CREATE INDEX outbox_due ON outbox (due_at)",
    # What has to wait for its time is in no line, so that what is due is found without reading it.
    "DROP INDEX task_claimable",
    """
    CREATE INDEX task_claimable ON task (agent_type, work_type, aim, rank, dispatch_no)
     WHERE status = 'pending' AND admitted AND not_before IS NULL
    """,
    "CREATE INDEX task_resting ON task (not_before) WHERE status = 'pending' AND not_before IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
