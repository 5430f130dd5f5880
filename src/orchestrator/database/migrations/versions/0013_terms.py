"""Approvals of terms, and votes that name their token: how often approved work runs, and who made the voter's token.

Expand step: the old program goes on working beside it. What it asks people about has no terms, and does not run here.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # How often, when and until when the work may run, and the digest of the work and that, which people approve.
    # `known_to` are those who know the token with which it was asked, besides its owner.
    """
    ALTER TABLE approval
        ADD COLUMN terms           jsonb NOT NULL DEFAULT '{}',
        ADD COLUMN approved_digest bytea NOT NULL DEFAULT '' CHECK (length(approved_digest) IN (0, 32)),
        ADD COLUMN known_to        text[] NOT NULL DEFAULT '{}'
    """,
    """
    ALTER TABLE approval_vote
        ADD COLUMN token_id         uuid,
        ADD COLUMN token_created_by text,
        ADD COLUMN token_age        interval
    """,
    # `makers` are those who made the token, and the tokens with which it was made. `claimed_at` is since when its owner
    # alone knows it.
    """
    ALTER TABLE token
        ADD COLUMN makers     text[] NOT NULL DEFAULT '{}',
        ADD COLUMN claimed_at timestamptz
    """,
    "UPDATE token SET makers = ARRAY[created_by]",
    # Whoever makes a token in the database may do there whatever that token lets them do.
    "UPDATE token SET claimed_at = created_at WHERE created_by = 'bootstrap' AND purpose = 'api'",
    # The retries of approved work that wait: few, and looked for every second.
    """
    CREATE INDEX task_retry_by_approval ON task (approval_id)
        WHERE status = 'pending' AND attempt > 0 AND approval_id IS NOT NULL
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
