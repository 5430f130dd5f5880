"""The identifiers that travel between processes, each a type of its own."""

from typing import NewType
from uuid import UUID, uuid4

TaskId = NewType("TaskId", UUID)
RequestId = NewType("RequestId", UUID)
TraceId = NewType("TraceId", UUID)
AgentId = NewType("AgentId", UUID)
MessageId = NewType("MessageId", UUID)


def new_request_id() -> RequestId:
    """Return an idempotency key for a dispatch whose caller gave none."""
    return RequestId(uuid4())


def new_trace_id() -> TraceId:
    """Return a correlation id for a dispatch whose caller gave none."""
    return TraceId(uuid4())


def new_message_id() -> MessageId:
    """Return an id for one publish; a repeated publish is a new message and gets a new id."""
    return MessageId(uuid4())
