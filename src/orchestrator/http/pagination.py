"""Opaque cursors: where the last page of a list ended."""

import base64
import binascii
from datetime import UTC, datetime
from uuid import UUID

from common.errors import InvalidField

MEANINGLESS = "is not one that this service gave; leave it out to begin anew"


def encode_cursor(at: datetime, task_id: UUID) -> str:
    """Return a cursor that stands behind this item."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {task_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, UUID]:
    """Return where a cursor stands; raises `InvalidField` for one that this service did not make."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        at, task_id = text.split(" ")
        return datetime.fromisoformat(at).astimezone(UTC), UUID(task_id)
    except (ValueError, OverflowError, binascii.Error):
        raise InvalidField("cursor", MEANINGLESS) from None
