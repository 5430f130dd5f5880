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
    # What waits for an answer names the question. NOT VALID: there was nothing to wait for before.
    """
    ALTER TABLE task ADD CONSTRAINT task_awaits_an_approval
        CHECK (status <> 'awaiting_approval' OR approval_id IS NOT NULL) NOT VALID
    """,
    # The work stands here as it was asked about, beside its digest. `task_id` refers to nothing: what people said
    # outlives the row of the task.
    """
    CREATE TABLE approval (
        approval_id    uuid        PRIMARY KEY,
        state          text        NOT NULL DEFAULT 'waiting'
                       CHECK (state IN ('waiting', 'approved', 'used', 'rejected', 'expired', 'cancelled')),
        digest         bytea       NOT NULL CHECK (length(digest) = 32),
        work_type      text        NOT NULL,
        target         text        NOT NULL,
        parameters     jsonb       NOT NULL,
        hints          jsonb       NOT NULL,
        effect         text        NOT NULL CHECK (effect IN ('read', 'write')),
        policy_version text        NOT NULL,
        rule           text        NOT NULL,
        approvers      smallint    NOT NULL CHECK (approvers >= 1),
        roles          text[]      NOT NULL,
        valid_for      interval    NOT NULL,
        requester_id   uuid        NOT NULL,
        requested_by   text        NOT NULL,
        note           text        NOT NULL DEFAULT '',
        task_id        uuid        UNIQUE,
        trace_id       uuid,
        created_at     timestamptz NOT NULL DEFAULT now(),
        expires_at     timestamptz NOT NULL,
        decided_at     timestamptz,
        valid_until    timestamptz,
        reason         text,
        CONSTRAINT approval_holds_for_a_while CHECK (state NOT IN ('approved', 'used') OR valid_until IS NOT NULL)
    )
    """,
    "CREATE INDEX approval_newest ON approval (created_at DESC, approval_id DESC)",
    "CREATE INDEX approval_open ON approval (coalesce(valid_until, expires_at)) WHERE state IN ('waiting', 'approved')",
    """
    CREATE TABLE approval_vote (
        approval_id  uuid        NOT NULL REFERENCES approval ON DELETE CASCADE,
        principal_id uuid        NOT NULL,
        name         text        NOT NULL,
        yes          boolean     NOT NULL,
        comment      text        NOT NULL,
        at           timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (approval_id, principal_id)
    )
    """,
    """
    CREATE TABLE approval_comment (
        id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        approval_id  uuid        NOT NULL REFERENCES approval ON DELETE CASCADE,
        principal_id uuid        NOT NULL,
        name         text        NOT NULL,
        text         text        NOT NULL,
        at           timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    "CREATE INDEX approval_comment_of ON approval_comment (approval_id)",
    # A second lock beside the program's own: what waits for an answer is let go only by an approval that was given.
    """
    CREATE FUNCTION task_needs_its_approval() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM approval
                        WHERE approval_id = NEW.approval_id AND task_id = NEW.task_id AND state = 'approved'
                          AND digest = NEW.work_digest) THEN
            RAISE EXCEPTION 'task % was not approved', NEW.task_id
                USING ERRCODE = 'check_violation', CONSTRAINT = 'task_needs_its_approval';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER task_needs_its_approval BEFORE UPDATE ON task FOR EACH ROW
        WHEN (OLD.status = 'awaiting_approval' AND NEW.status = 'pending')
        EXECUTE FUNCTION task_needs_its_approval()
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
