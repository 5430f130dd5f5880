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
    # `outcome` is that of the last attempt once that has ended; a task that waits has none.
    """
    ALTER TABLE task
        ADD COLUMN output_bytes jsonb,
        ADD COLUMN output_dropped jsonb,
        ADD COLUMN outcome text CHECK (outcome IN ('completed', 'failed', 'cancelled', 'lost'))
    """,
    f"""
    UPDATE task
       SET output_bytes = attempt.output_bytes, output_dropped = attempt.output_dropped,
           outcome = attempt.outcome
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
    # Every attempt, as if each had a row. See `orchestrator.tasks.attempts` for how to look up many.
    """
    CREATE VIEW attempt AS
    SELECT task_id, number, agent_id, claim_id, started_at, ended_at, outcome, exit_code, error_code, error_message,
           duration_ms, output_bytes, output_dropped, started
      FROM earlier_attempt
     UNION ALL
    SELECT task_id, attempt, agent_id, claim_id, started_at, finished_at, outcome, exit_code, error_code, error_message,
           duration_ms, output_bytes, output_dropped, true
      FROM task
     WHERE status = 'running' OR outcome IS NOT NULL
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
