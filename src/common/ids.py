"""The identifiers that are made here rather than by a caller."""

from uuid import UUID, uuid4


def new_request_id() -> UUID:
    """Return an idempotency key for a dispatch whose caller gave none."""
    return uuid4()


def new_trace_id() -> UUID:
    """Return a correlation id for a dispatch whose caller gave none."""
    return uuid4()


def new_message_id() -> UUID:
    """Return an id for one publish; a repeated publish is a new message and gets a new id."""
    return uuid4()
