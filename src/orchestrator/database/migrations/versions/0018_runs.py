"""Runs: ordered plans whose steps are tasks, the inner steps that agents report, and the artifacts that tasks keep.

A yes may hold for a shorter time than its rule says.

Expand step: the old program goes on working beside it, and looks at none of this.
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # `digest` is that of what was asked, and tells a repetition from a conflict. Of the runs with one key one is
    # admitted at a time, in the order of `queued_at`, which a retry sets anew. `ending` is why undo steps run, or ran.
    """
    CREATE TABLE run (
        run_id        uuid        PRIMARY KEY,
        request_id    uuid        NOT NULL CONSTRAINT run_request_id_key UNIQUE,
        trace_id      uuid        NOT NULL,
        name          text        NOT NULL DEFAULT '',
        plan          jsonb       NOT NULL,
        inputs        jsonb       NOT NULL DEFAULT '{}',
        digest        bytea       NOT NULL CHECK (length(digest) = 32),
        status        text        NOT NULL CHECK (status IN ('pending', 'running', 'awaiting_approval', 'succeeded',
                                                             'failed', 'rolled_back', 'cancelled')),
        key           text,
        admitted      boolean     NOT NULL DEFAULT false,
        about         jsonb       NOT NULL DEFAULT '{}',
        requested_by  jsonb       NOT NULL,
        created_at    timestamptz NOT NULL DEFAULT now(),
        queued_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
        started_at    timestamptz,
        finished_at   timestamptz,
        ending        text        CHECK (ending IN ('failed', 'cancelled', 'abandoned')),
        error_message text,
        cancelled_by  text,
        CONSTRAINT run_final_is_finished CHECK (
            (status IN ('succeeded', 'failed', 'rolled_back', 'cancelled')) = (finished_at IS NOT NULL)),
        CONSTRAINT run_final_is_not_admitted CHECK (finished_at IS NULL OR NOT admitted)
    )
    """,
    "CREATE INDEX run_newest ON run (created_at DESC, run_id DESC)",
    "CREATE INDEX run_by_status ON run (status, created_at DESC, run_id DESC)",
    "CREATE INDEX run_by_name ON run (name, created_at DESC, run_id DESC) WHERE name <> ''",
    """
    CREATE INDEX run_by_service ON run ((about->>'service'), created_at DESC, run_id DESC)
        WHERE about->>'service' IS NOT NULL
    """,
    "CREATE INDEX run_open ON run (run_id) WHERE finished_at IS NULL",
    "CREATE UNIQUE INDEX run_one_of_a_key ON run (key) WHERE admitted AND key IS NOT NULL",
    "CREATE INDEX run_waiting ON run (key, queued_at, run_id) WHERE finished_at IS NULL AND key IS NOT NULL",
    # A step links a run to a task, whose state is that of the step. The row is written before the task: `parameters`
    # are those that the plan does not give literally. `task_id` refers to nothing, for the task may not be there yet.
    """
    CREATE TABLE run_step (
        run_id     uuid        NOT NULL REFERENCES run,
        step       text        NOT NULL,
        kind       text        NOT NULL CHECK (kind IN ('step', 'undo')),
        number     smallint    NOT NULL CHECK (number > 0),
        task_id    uuid        CONSTRAINT run_step_task_id_key UNIQUE,
        parameters jsonb,
        hints      jsonb,
        problem    text,
        superseded boolean     NOT NULL DEFAULT false,
        at         timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (run_id, step, kind, number),
        CONSTRAINT run_step_has_a_task_or_a_problem CHECK (task_id IS NOT NULL OR problem IS NOT NULL)
    )
    """,
    # What an agent reports of the steps inside of one attempt.
    """
    CREATE TABLE task_step (
        task_id     uuid        NOT NULL REFERENCES task ON DELETE CASCADE,
        attempt     smallint    NOT NULL,
        position    smallint    NOT NULL,
        name        text        NOT NULL,
        status      text        NOT NULL CHECK (status IN ('in_progress', 'succeeded', 'failed', 'skipped')),
        started_at  timestamptz,
        finished_at timestamptz,
        message     text        NOT NULL DEFAULT '',
        PRIMARY KEY (task_id, attempt, name)
    )
    """,
    # Content lies in files by its digest; pieces wait here until all of them have arrived.
    """
    CREATE TABLE artifact (
        artifact_id uuid        PRIMARY KEY,
        task_id     uuid        NOT NULL,
        attempt     smallint    NOT NULL,
        name        text        NOT NULL,
        type        text        NOT NULL,
        sha256      text        NOT NULL CHECK (length(sha256) = 64),
        size        bigint      NOT NULL CHECK (size >= 0),
        created_at  timestamptz NOT NULL DEFAULT now(),
        stored_at   timestamptz,
        missing     text,
        CONSTRAINT artifact_name_key UNIQUE (task_id, attempt, name)
    )
    """,
    # Those to be put together, looked for every few seconds.
    "CREATE INDEX artifact_open ON artifact (created_at) WHERE stored_at IS NULL",
    "CREATE INDEX artifact_by_content ON artifact (sha256) WHERE missing IS NULL",
    """
    CREATE TABLE artifact_piece (
        artifact_id uuid   NOT NULL REFERENCES artifact ON DELETE CASCADE,
        byte_offset bigint NOT NULL CHECK (byte_offset >= 0),
        data        bytea  NOT NULL,
        PRIMARY KEY (artifact_id, byte_offset)
    )
    """,
    """
    CREATE TABLE upload (
        sha256 text        PRIMARY KEY CHECK (length(sha256) = 64),
        size   bigint      NOT NULL CHECK (size >= 0),
        by     text        NOT NULL,
        at     timestamptz NOT NULL DEFAULT now()
    )
    """,
    # Who says yes may say until when that holds.
    "ALTER TABLE approval_vote ADD COLUMN until timestamptz",
    # Signs the paths of downloads; every orchestrator on this ledger knows the same key.
    """
    CREATE TABLE link_key (
        "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
        key    bytea   NOT NULL
    )
    """,
    """
    INSERT INTO link_key (key)
    SELECT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
