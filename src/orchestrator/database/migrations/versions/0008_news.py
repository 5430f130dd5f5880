"""Whoever is told of new events is told how far they go.

Expand step: the old program hears the same notifications and does not look at what they say.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATEMENTS = (
    "SET LOCAL lock_timeout = '3s'",
    # A notification arrives after the commit, and commits come in the order of the numbers: everything up to this one
    # can be read then.
    """
    CREATE OR REPLACE FUNCTION event_tell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('chiffon_event', (SELECT seq FROM event_head)::text);
        RETURN NULL;
    END $$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
