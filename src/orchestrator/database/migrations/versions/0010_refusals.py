"""Refusals before the start, clocks that are off, and two processes of one agent.

Expand step: the old program goes on working beside it, and looks at none of this.
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # Whether anything of an attempt ran. The attempts that did not are the memory of which agent refused which task.
    "ALTER TABLE attempt ADD COLUMN started boolean NOT NULL DEFAULT true",
    "CREATE INDEX attempt_unstarted ON attempt (agent_id, ended_at) WHERE NOT started",
    # `clock_off_by` is NULL while the clock differs by no more than it may. `boot_id` names the process whose word
    # counts, `boot_before` the one before it, and `boot_refused` the later of two that ran at the same time.
    """
    ALTER TABLE agent
        ADD COLUMN clock_off_by interval,
        ADD COLUMN trip_reason  text,
        ADD COLUMN boot_id      uuid,
        ADD COLUMN boot_before  uuid,
        ADD COLUMN boot_refused uuid
    """,
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
                  FROM agent WHERE agent.agent_id = id), 'free')
        END
    $$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
