"""The row of a task holds its last attempt; earlier attempts have rows of their own.

Not beside the old program: stop every orchestrator first. It takes as long as it takes to rewrite the tasks that have
an attempt.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# A task that was cancelled while it waited had its last attempt end before.
IS_LAST = """
    attempt.task_id = task.task_id AND attempt.number = task.attempt
    AND (task.status IN ('running', 'completed', 'failed')
         OR task.status = 'cancelled' AND attempt.outcome = 'cancelled')
"""

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # `lost`: it failed because its agent stopped renewing.
    """
    ALTER TABLE task
        ADD COLUMN output_bytes jsonb,
        ADD COLUMN output_dropped jsonb,
        ADD COLUMN lost boolean NOT NULL DEFAULT false
    """,
    f"""
    UPDATE task
       SET output_bytes = attempt.output_bytes, output_dropped = attempt.output_dropped,
           lost = coalesce(attempt.outcome = 'lost', false)
      FROM attempt
     WHERE {IS_LAST}
    """,  # noqa: S608 - constants only
    f"DELETE FROM attempt USING task WHERE {IS_LAST}",  # noqa: S608 - constants only
    # Of what is there already it is known.
    """
    ALTER TABLE output_chunk
        DROP CONSTRAINT output_chunk_task_id_attempt_fkey,
        ADD CONSTRAINT output_chunk_of_a_task FOREIGN KEY (task_id) REFERENCES task ON DELETE CASCADE NOT VALID
    """,
    "ALTER TABLE attempt RENAME TO earlier_attempt",
    """
    ALTER TABLE earlier_attempt
        DROP CONSTRAINT attempt_ends_with_an_outcome,
        ADD CONSTRAINT earlier_attempt_has_ended CHECK (ended_at IS NOT NULL AND outcome IS NOT NULL)
    """,
    "DROP INDEX attempt_one_open_for_a_task",
    "DROP INDEX attempt_open_claim",
    # Refusals are looked up by their task.
    "DROP INDEX attempt_unstarted",
    # What an agent runs, by the claim that a task has then.
    "CREATE INDEX task_held ON task (agent_id) WHERE claim_id IS NOT NULL",
    # Every attempt, as if each had a row.
    """
    CREATE VIEW attempt AS
    SELECT task_id, number, agent_id, claim_id, started_at, ended_at, outcome, exit_code, error_code, error_message,
           duration_ms, output_bytes, output_dropped, started
      FROM earlier_attempt
     UNION ALL
    SELECT task_id, attempt, agent_id, claim_id, started_at, finished_at,
           CASE WHEN status = 'running' THEN NULL WHEN lost THEN 'lost' ELSE status END,
           exit_code, error_code, error_message, duration_ms, output_bytes, output_dropped, true
      FROM task
     WHERE attempt > 0 AND NOT EXISTS (
        SELECT FROM earlier_attempt AS earlier
         WHERE earlier.task_id = task.task_id AND earlier.number = task.attempt)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
