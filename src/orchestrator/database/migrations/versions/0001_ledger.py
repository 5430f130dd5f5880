"""The ledger: tasks, attempts, agents, events, outbox and output.

What must never be true cannot be stored: the CHECKs, the partial unique indexes and the guard trigger say so.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    """
    CREATE TABLE task (
        task_id          uuid        PRIMARY KEY,
        request_id       uuid        NOT NULL CONSTRAINT task_request_id_key UNIQUE,
        trace_id         uuid        NOT NULL,
        work_type        text        NOT NULL,
        agent_type       text        NOT NULL,
        parameters       jsonb       NOT NULL,
        hints            jsonb       NOT NULL,
        content_digest   bytea       NOT NULL,
        priority         smallint    NOT NULL CHECK (priority BETWEEN 1 AND 5),
        idempotent       boolean     NOT NULL,
        max_attempts     smallint    NOT NULL CHECK (max_attempts BETWEEN 1 AND 20),
        status           text        NOT NULL CHECK (status IN
                             ('awaiting_approval', 'pending', 'running', 'completed', 'failed', 'cancelled')),
        attempt          smallint    NOT NULL DEFAULT 0,
        unstarted        smallint    NOT NULL DEFAULT 0 CHECK (unstarted BETWEEN 0 AND 100),
        fence            bigint      NOT NULL DEFAULT 0,
        agent_id         uuid,
        claim_id         uuid,
        lease_expires_at timestamptz,
        progress         text        NOT NULL DEFAULT '',
        output           text        NOT NULL DEFAULT '',
        error_message    text,
        error_code       integer,
        exit_code        integer,
        duration_ms      bigint      CHECK (duration_ms >= 0),
        created_at       timestamptz NOT NULL DEFAULT now(),
        updated_at       timestamptz NOT NULL DEFAULT now(),
        started_at       timestamptz,
        finished_at      timestamptz,
        CONSTRAINT task_starts_are_bounded CHECK (attempt - unstarted BETWEEN 0 AND max_attempts),
        CONSTRAINT task_every_attempt_raised_the_fence CHECK (fence >= attempt),
        CONSTRAINT task_runs_with_a_lease_or_not_at_all CHECK (
            CASE WHEN status = 'running'
                 THEN agent_id IS NOT NULL AND claim_id IS NOT NULL AND lease_expires_at IS NOT NULL
                      AND attempt > 0 AND started_at IS NOT NULL
                 ELSE claim_id IS NULL AND lease_expires_at IS NULL
            END),
        CONSTRAINT task_final_is_finished CHECK (
            (status IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL))
    )
    """,
    "CREATE INDEX task_newest ON task (created_at DESC, task_id DESC)",
    "CREATE INDEX task_trace ON task (trace_id)",
    "CREATE INDEX task_leases ON task (lease_expires_at) WHERE status = 'running'",
    # The same moves as common.lifecycle.TRANSITIONS; a test compares the two.
    """
    CREATE FUNCTION task_guard() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.fence < OLD.fence THEN
            RAISE EXCEPTION 'the fence of task % may only rise (% to %)', OLD.task_id, OLD.fence, NEW.fence
                USING ERRCODE = 'check_violation', CONSTRAINT = 'task_fence_only_rises';
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
    """
    CREATE TRIGGER task_guard BEFORE UPDATE ON task FOR EACH ROW
        WHEN (OLD.status IS DISTINCT FROM NEW.status OR OLD.fence IS DISTINCT FROM NEW.fence)
        EXECUTE FUNCTION task_guard()
    """,
    """
    CREATE TABLE attempt (
        task_id       uuid        NOT NULL REFERENCES task ON DELETE CASCADE,
        number        smallint    NOT NULL CHECK (number >= 1),
        fence         bigint      NOT NULL,
        agent_id      uuid        NOT NULL,
        claim_id      uuid        NOT NULL,
        started_at    timestamptz NOT NULL DEFAULT now(),
        ended_at      timestamptz,
        outcome       text        CHECK (outcome IN ('completed', 'failed', 'cancelled', 'lost')),
        exit_code     integer,
        error_code    integer,
        error_message text,
        duration_ms   bigint,
        output_bytes  jsonb,
        PRIMARY KEY (task_id, number),
        CONSTRAINT attempt_has_a_fence_of_its_own UNIQUE (task_id, fence),
        CONSTRAINT attempt_ends_with_an_outcome CHECK ((ended_at IS NULL) = (outcome IS NULL))
    )
    """,
    "CREATE UNIQUE INDEX attempt_one_open_for_a_task ON attempt (task_id) WHERE ended_at IS NULL",
    """
    CREATE TABLE output_chunk (
        task_id     uuid     NOT NULL,
        attempt     smallint NOT NULL,
        stream      text     NOT NULL CHECK (stream IN ('stdout', 'stderr')),
        byte_offset bigint   NOT NULL CHECK (byte_offset >= 0),
        number      integer  NOT NULL CHECK (number >= 0),
        size        integer  NOT NULL CHECK (size > 0),
        text        text     NOT NULL,
        PRIMARY KEY (task_id, attempt, stream, byte_offset),
        FOREIGN KEY (task_id, attempt) REFERENCES attempt ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE agent (
        agent_id          uuid        PRIMARY KEY,
        agent_type        text        NOT NULL,
        status            text        NOT NULL CHECK (status IN ('online', 'busy', 'draining', 'offline')),
        hostname          text        NOT NULL,
        version           text        NOT NULL,
        work_types        text[]      NOT NULL,
        slots             integer     NOT NULL CHECK (slots >= 1),
        current_tasks     uuid[]      NOT NULL,
        resources         jsonb       NOT NULL,
        started_at        timestamptz NOT NULL,
        registered_at     timestamptz NOT NULL DEFAULT now(),
        last_heartbeat_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX agent_silent ON agent (last_heartbeat_at) WHERE status <> 'offline'",
    # The one row that numbers all events: whoever writes events holds it until the commit, so numbers have no gap and
    # become visible in their order.
    """
    CREATE TABLE event_head (
        only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
        seq      bigint  NOT NULL DEFAULT 0
    )
    """,
    "INSERT INTO event_head DEFAULT VALUES",
    """
    CREATE TABLE event (
        seq        bigint      PRIMARY KEY,
        at         timestamptz NOT NULL,
        kind       text        NOT NULL,
        task_id    uuid,
        trace_id   uuid,
        request_id uuid,
        agent_id   uuid,
        attempt    smallint,
        actor      text        NOT NULL,
        data       jsonb       NOT NULL
    )
    """,
    "CREATE INDEX event_of_task ON event (task_id, seq) WHERE task_id IS NOT NULL",
    "CREATE INDEX event_of_trace ON event (trace_id, seq) WHERE trace_id IS NOT NULL",
    """
    CREATE FUNCTION event_tell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('chiffon_event', '');
        RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER event_tell AFTER INSERT ON event FOR EACH STATEMENT EXECUTE FUNCTION event_tell()",
    """
    CREATE TABLE outbox (
        id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        kind         text        NOT NULL CHECK (kind IN ('ticket', 'order')),
        recipient    text        NOT NULL,
        task_id      uuid,
        priority     smallint    NOT NULL CHECK (priority BETWEEN 1 AND 5),
        body         jsonb       NOT NULL,
        rank         timestamptz NOT NULL,
        due_at       timestamptz NOT NULL,
        published_at timestamptz,
        CONSTRAINT outbox_a_ticket_names_its_task CHECK (kind <> 'ticket' OR task_id IS NOT NULL)
    )
    """,
    "CREATE UNIQUE INDEX outbox_one_ticket_for_a_task ON outbox (task_id) WHERE kind = 'ticket'",
    "CREATE INDEX outbox_tickets_by_rank ON outbox (recipient, rank, id) WHERE kind = 'ticket'",
    "CREATE INDEX outbox_tickets_ahead ON outbox (recipient) WHERE kind = 'ticket' AND published_at IS NOT NULL",
    "CREATE INDEX outbox_orders ON outbox (id) WHERE kind = 'order'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
