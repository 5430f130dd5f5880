"""The envelope around every message, and how it becomes bytes and back.

The `type` decides which payload an envelope carries. What cannot be read raises `UnreadableMessage` with a reason fit
for the dead letters.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError

from common.errors import ChiffonError, ErrorCode
from common.ids import new_message_id
from common.messages import (
    Credit,
    Grant,
    Message,
    Probe,
    Renew,
    WantFile,
)

# The seed imports these from here.
from common.messages import StatusUpdate as StatusUpdate
from common.messages import WorkRequest as WorkRequest
from common.messages import WorkResult as WorkResult
from common.messages import WorkStatus as WorkStatus
from common.orders import Control
from common.unreadable import Unreadable

PROTOCOL_VERSION: Literal["1.0"] = "1.0"
ORCHESTRATOR = "orchestrator"
NORMAL_PRIORITY = 3

# How large a message may be; a larger one is not parsed. What Chiffon itself sends is smaller: the largest that an
# agent says is a result with the output that was not sent yet, the largest that it is told a grant.
MOST_REPLY_BYTES = 16 * 1024 * 1024
MOST_BYTES = 64 * 1024 * 1024

# How many results travel as one message, and how many bytes of them: with their envelope not more than the ledger keeps
# of a dead letter.
MOST_RESULTS = 100
MOST_RESULTS_BYTES = 1024 * 1024 - 1024


class UnreadableMessage(ChiffonError, ValueError):
    """The bytes are not an envelope of this protocol; the text says what was wrong with them."""

    code = ErrorCode.INVALID_MESSAGE


class MessageEnvelope(Message):
    """Who says what to whom, about which dispatch, and how urgent it is.

    `priority` runs from 1 (background) to 5 (critical). `trace_id` and `request_id` are None for messages that are not
    about one dispatch, such as heartbeats.
    """

    protocol_version: Literal["1.0"] = PROTOCOL_VERSION
    message_id: UUID = Field(default_factory=new_message_id)
    from_agent: str = Field(min_length=1, max_length=128)
    to_agent: str = Field(min_length=1, max_length=128)
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    trace_id: UUID | None = None
    request_id: UUID | None = None
    priority: int = Field(default=NORMAL_PRIORITY, ge=1, le=5)


class WorkRequestEnvelope(MessageEnvelope):
    """Work for one agent: tasks that are leased to it, all of the envelope's priority."""

    type: Literal["work_request"] = "work_request"
    payload: Grant


class WorkStatusEnvelope(MessageEnvelope):
    type: Literal["work_status"] = "work_status"
    payload: WorkStatus


class WantFileEnvelope(MessageEnvelope):
    type: Literal["want_file"] = "want_file"
    payload: WantFile


class WorkResultEnvelope(MessageEnvelope):
    type: Literal["work_result"] = "work_result"
    payload: WorkResult


class WorkResults(Message):
    """Results of one agent that were ready together, each as it would travel alone. `credit` asks for more work."""

    agent_id: UUID
    credit: Credit | None = None
    results: list[WorkResultEnvelope] = Field(min_length=1, max_length=MOST_RESULTS)


class WorkResultsEnvelope(MessageEnvelope):
    type: Literal["work_results"] = "work_results"
    payload: WorkResults


class StatusUpdateEnvelope(MessageEnvelope):
    type: Literal["status_update"] = "status_update"
    payload: StatusUpdate


class RenewEnvelope(MessageEnvelope):
    type: Literal["renew"] = "renew"
    payload: Renew


class ControlEnvelope(MessageEnvelope):
    type: Literal["control"] = "control"
    payload: Control


class UnreadableEnvelope(MessageEnvelope):
    type: Literal["unreadable"] = "unreadable"
    payload: Unreadable


class ProbeEnvelope(MessageEnvelope):
    type: Literal["probe"] = "probe"
    payload: Probe


Envelope = Annotated[
    WorkRequestEnvelope
    | WorkStatusEnvelope
    | WantFileEnvelope
    | WorkResultEnvelope
    | WorkResultsEnvelope
    | StatusUpdateEnvelope
    | RenewEnvelope
    | ControlEnvelope
    | UnreadableEnvelope
    | ProbeEnvelope,
    Field(discriminator="type"),
]

_READER: TypeAdapter[Envelope] = TypeAdapter(Envelope)


def encode(envelope: MessageEnvelope) -> bytes:
    """Return the envelope as UTF-8 JSON."""
    return envelope.model_dump_json().encode()


def join_results(agent_id: UUID, results: Sequence[bytes], *, credit: Credit | None = None) -> bytes:
    """Return one envelope around results of an agent that are encoded already, as they are."""
    nothing = WorkResults.model_construct(agent_id=agent_id, credit=credit, results=[])
    empty = WorkResultsEnvelope.model_construct(from_agent=str(agent_id), to_agent=ORCHESTRATOR, payload=nothing)
    head, bracket, tail = encode(empty).rpartition(b"]")
    return b"".join((head, b",".join(results), bracket, tail))


def decode(body: bytes, *, limit: int = MOST_BYTES) -> Envelope:
    """Return the envelope that the bytes hold, or raise `UnreadableMessage`; more than `limit` are not read."""
    if len(body) > limit:
        raise UnreadableMessage(f"body: it has {len(body)} bytes, and at most {limit} are read")
    try:
        return _READER.validate_json(body)
    except ValidationError as error:
        raise UnreadableMessage(_summary(error)) from None


def _summary(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['msg']}" for p in problems[:3])
    return first if len(problems) <= 3 else f"{first}; and {len(problems) - 3} more"
