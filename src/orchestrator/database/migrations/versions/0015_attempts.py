"""The number of an attempt is its fencing token: the column `fence`, which said the same, goes.

Not beside the old program: stop every orchestrator first. Agents keep what they run, for they report it by the number
of the attempt.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    """
    CREATE OR REPLACE FUNCTION task_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.attempt < OLD.attempt THEN
            RAISE EXCEPTION 'the attempt of task % may only rise (% to %)', OLD.task_id, OLD.attempt, NEW.attempt
                USING ERRCODE = 'check_violation', CONSTRAINT = 'task_attempt_only_rises';
        END IF;
        IF NEW.status <> OLD.status AND (OLD.status, NEW.status) NOT IN (
            ('awaiting_approval', 'pending'), ('awaiting_approval', 'cancelled'),
            ('pending', 'running'), ('pending', 'cancelled'),
            ('running', 'completed'), ('running', 'failed'), ('running', 'pending'), ('running', 'cancelled')
        ) THEN
            RAISE EXCEPTION 'task % cannot go from % to %', OLD.task_id, OLD.status, NEW.status
                USING ERRCODE = 'check_violation', CONSTRAINT = 'task_moves_are_in_the_table';
        END IF;
        RETURN NEW;
    END $$
    """,
    "DROP TRIGGER task_guard ON task",
    """
    CREATE TRIGGER task_guard BEFORE UPDATE ON task FOR EACH ROW
        WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.attempt IS DISTINCT FROM NEW.attempt)
        EXECUTE FUNCTION task_guard()
    """,
    # With the columns go the constraints and the index that are about them.
    "ALTER TABLE task DROP COLUMN fence",
    "ALTER TABLE attempt DROP COLUMN fence",
    "ALTER TABLE stopping RENAME COLUMN fence TO attempt",
    "ALTER TABLE stopping ALTER COLUMN attempt TYPE smallint",
    # Orders to stop an attempt that wait to be sent.
    """
    UPDATE outbox
       SET body = jsonb_set(body #- '{payload,order,fence}', '{payload,order,attempt}', body #> '{payload,order,fence}')
     WHERE body #> '{payload,order}' ? 'fence'
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
