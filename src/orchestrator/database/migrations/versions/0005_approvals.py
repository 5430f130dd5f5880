"""Policy and approvals: by which rule each task may run, and who said yes to it.

Expand step: the old program goes on working beside it.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATEMENTS = ("SET LOCAL lock_timeout = '3s'",)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
