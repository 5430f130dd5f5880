"""Every way to take a task: jobs with priorities of their own, workers that speak HTTP, and placement.

Expand step: the old program goes on working beside it; it gives `precedence` its default, that of normal priority.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # `precedence` orders the claims over HTTP: a dispatch's priority less 3, or the whole number that a job was given.
    # `aim` names who may take the task, as a row of `aim`; most tasks aim at nobody in particular.
    """
    ALTER TABLE task
        ADD COLUMN precedence     bigint  NOT NULL DEFAULT 0,
        ADD COLUMN aim            text    NOT NULL DEFAULT '',
        ADD COLUMN artifacts_path text,
        DROP CONSTRAINT task_max_attempts_check,
        ADD CONSTRAINT task_max_attempts_check CHECK (max_attempts BETWEEN 1 AND 100)
    """,
    "UPDATE task SET precedence = priority - 3 WHERE status IN ('awaiting_approval', 'pending', 'running')",
    """
    CREATE INDEX task_claimable ON task (agent_type, work_type, aim, precedence DESC, dispatch_no)
     WHERE status = 'pending' AND admitted
    """,
    "CREATE INDEX task_finished ON task (finished_at DESC, task_id) WHERE finished_at IS NOT NULL",
    # A claim over HTTP that is repeated finds what it got.
    "CREATE INDEX attempt_open_claim ON attempt (claim_id) WHERE ended_at IS NULL",
    # How much each stream wrote beyond the limit, for readers to be told: NULL when nothing was dropped.
    "ALTER TABLE attempt ADD COLUMN output_dropped jsonb",
    # Who may take a task that not every agent of its pool may: one agent, or those with certain labels.
    """
    CREATE TABLE aim (
        aim        text        PRIMARY KEY CHECK (aim <> ''),
        agent_type text        NOT NULL,
        agent_id   uuid,
        requires   jsonb       NOT NULL,
        prefers    jsonb       NOT NULL,
        used_at    timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX task_aimed ON task (aim) WHERE aim <> '' AND status IN ('awaiting_approval', 'pending', 'running')",
    # To which agent the ticket of a task that aims at certain agents was sent.
    "ALTER TABLE outbox ADD COLUMN placed_on uuid",
    "CREATE INDEX outbox_placed ON outbox (placed_on) WHERE placed_on IS NOT NULL",
    # `worker_id` is what a worker that speaks HTTP calls itself; an agent that speaks through the broker has none.
    """
    ALTER TABLE agent
        ADD COLUMN labels    jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN worker_id text
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
