"""What the promises need: order and concurrency of keys, limits on waiting, pauses, dead letters and proofs of life.

Expand step: the old program goes on working beside it, but would not let the next task of a key go, so let it end soon.
`dispatch_no` numbers the tasks that are there, which rewrites the table of tasks once.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # `dispatch_no` is the order of dispatch among tasks of one key. A task is first in its order when nothing that has
    # its ordering key and came before it is unfinished. One that is not admitted waits for its keys, without a ticket.
    """
    ALTER TABLE task
        ADD COLUMN dispatch_no      bigint      GENERATED ALWAYS AS IDENTITY,
        ADD COLUMN ordering_key     text,
        ADD COLUMN concurrency_key  text,
        ADD COLUMN first_in_order   boolean     NOT NULL DEFAULT true,
        ADD COLUMN admitted         boolean     NOT NULL DEFAULT true,
        ADD COLUMN expires_at       timestamptz,
        ADD COLUMN rerun_of         uuid,
        ADD CONSTRAINT task_only_an_admitted_one_runs CHECK (admitted OR status <> 'running'),
        ADD CONSTRAINT task_only_the_first_is_admitted CHECK (first_in_order OR NOT admitted)
    """,
    """
    CREATE INDEX task_of_ordering_key ON task (ordering_key, dispatch_no)
     WHERE ordering_key IS NOT NULL AND status IN ('awaiting_approval', 'pending', 'running')
    """,
    # Those that only their concurrency key holds back, in the order in which it lets them go; whoever waits for others
    # of an ordering key is not in it, so that a deep backlog of one never has to be searched.
    """
    CREATE INDEX task_next_of_concurrency_key ON task (concurrency_key, priority DESC, dispatch_no)
     WHERE concurrency_key IS NOT NULL AND status = 'pending' AND first_in_order AND NOT admitted
    """,
    """
    CREATE INDEX task_admitted_of_concurrency_key ON task (concurrency_key)
     WHERE concurrency_key IS NOT NULL AND admitted AND status IN ('pending', 'running')
    """,
    # At most one task of an ordering key is on its way at a time.
    """
    CREATE UNIQUE INDEX task_one_admitted_of_an_ordering_key ON task (ordering_key)
     WHERE ordering_key IS NOT NULL AND admitted AND status IN ('pending', 'running')
    """,
    "CREATE INDEX task_expiring ON task (expires_at) WHERE status = 'pending' AND expires_at IS NOT NULL",
    """
    CREATE TABLE concurrency_limit (
        concurrency_key text     PRIMARY KEY,
        at_most         smallint NOT NULL CHECK (at_most BETWEEN 1 AND 1000)
    )
    """,
    # A task with a key that was cancelled while it ran: its keys are not free until its agent says that it is stopped,
    # or until the lease is over that it had. There are never many, so that every reader may look at all of them.
    """
    CREATE TABLE stopping (
        task_id         uuid        PRIMARY KEY REFERENCES task ON DELETE CASCADE,
        fence           bigint      NOT NULL,
        agent_id        uuid        NOT NULL,
        ordering_key    text,
        concurrency_key text,
        until           timestamptz NOT NULL
    )
    """,
    """
    ALTER TABLE agent
        ADD COLUMN paused_until    timestamptz,
        ADD COLUMN paused_by       text,
        ADD COLUMN pause_note      text,
        ADD COLUMN draining        boolean  NOT NULL DEFAULT false,
        ADD COLUMN drained_by      text,
        ADD COLUMN drain_note      text,
        ADD COLUMN failures_in_row smallint NOT NULL DEFAULT 0,
        ADD COLUMN tripped_until   timestamptz
    """,
    """
    CREATE TABLE dead_letter (
        id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        kind         text        NOT NULL CHECK (kind IN ('message', 'task')),
        message_id   text        CONSTRAINT dead_letter_is_noted_once UNIQUE,
        queue        text        NOT NULL,
        type         text        NOT NULL,
        reason       text        NOT NULL,
        body         bytea       NOT NULL DEFAULT '',
        body_bytes   bigint      NOT NULL DEFAULT 0 CHECK (body_bytes >= length(body)),
        priority     smallint    NOT NULL DEFAULT 3,
        task_id      uuid,
        at           timestamptz NOT NULL DEFAULT now(),
        state        text        NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'replayed', 'discarded')),
        settled_at   timestamptz,
        settled_by   text,
        replayed_as  uuid,
        CONSTRAINT dead_letter_is_settled_by_somebody CHECK (
            (state = 'waiting') = (settled_at IS NULL) AND (state = 'waiting') = (settled_by IS NULL)),
        CONSTRAINT dead_letter_names_its_task CHECK ((kind = 'task') = (task_id IS NOT NULL))
    )
    """,
    "CREATE INDEX dead_letter_waiting ON dead_letter (id) WHERE state = 'waiting'",
    # When each orchestrator last sent a probe through the broker, and when one of its probes last came back.
    """
    CREATE TABLE probe (
        orchestrator_id uuid        PRIMARY KEY,
        sent_at         timestamptz NOT NULL DEFAULT now(),
        returned_at     timestamptz
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
