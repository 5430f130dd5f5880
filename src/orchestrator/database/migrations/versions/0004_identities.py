"""Identities: people, services and agents, and their tokens.

Expand step: the old program goes on working beside it.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = ("SET LOCAL lock_timeout = '3s'",)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
