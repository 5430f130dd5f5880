"""Dead letters as callers see them, and settling them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, JsonValue

from common.json_rules import WholeNumber
from common.rest.base import Answer, OrNewer, Request
from common.rest.errors import ErrorResponse

MOST_SETTLED = 100
LARGEST_ID = 2**63 - 1

LetterId = Annotated[WholeNumber, Field(ge=1, le=LARGEST_ID)]


class DeadLetterKind(StrEnum):
    """What ended here: a message that cannot be dealt with, or a task whose attempts all met with a failing host."""

    MESSAGE = "message"
    TASK = "task"


class DeadLetterState(StrEnum):
    """Whether a dead letter still waits, or how it was settled."""

    WAITING = "waiting"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class DeadLetter(Answer):
    """A message that could not be handled, or a task whose attempts all met with a failing agent or host."""

    id: int = Field(description="Its number.")
    kind: OrNewer[DeadLetterKind] = Field(
        description="A message, or a task whose attempts all met with a failing agent or host."
    )
    state: OrNewer[DeadLetterState] = Field(description="waiting, replayed or discarded")
    queue: str = Field(description="The queue that it came from.", examples=["work.infra"])
    type: str = Field(description="The type of the message, or the work type of the task.")
    reason: str = Field(description="Why it could not be handled.")
    message_id: str | None = Field(description="The id of the message, for one of kind message.")
    task_id: UUID | None = Field(description="The task, for one of kind task.")
    body_bytes: int = Field(description="How long the message was.")
    body_truncated: bool = Field(description="Only the first MiB was kept, so it cannot be replayed.")
    at: datetime = Field(description="When it was noted.")
    settled_at: datetime | None = Field(description="When it was replayed or discarded.")
    settled_by: str | None = Field(description="Who replayed or discarded it.")
    replayed_as: UUID | None = Field(description="The task that the replay of a task made.")


class DeadLetterDetail(DeadLetter):
    """A dead letter with its body."""

    body: str = Field(description="The message, as far as it was kept.")
    body_encoding: Literal["utf-8", "base64"] = Field(description="base64 when it is no text.")
    body_json: JsonValue | None = Field(description="The message as JSON, when it is JSON that can be shown as such.")


class DeadLetterPage(Answer):
    """A page of dead letters, newest first."""

    items: list[DeadLetter] = Field(description="The dead letters of this page.")
    next_cursor: str | None = Field(default=None, description="Pass it as `cursor` to get the next page.")


class SettleRequest(Request):
    """Up to 100 dead letters to settle, each answered on its own."""

    ids: list[LetterId] = Field(min_length=1, max_length=MOST_SETTLED, description="Their numbers.", examples=[[1, 2]])


class Settled(Answer):
    """The answer for one dead letter of several: either `dead_letter` or `error`."""

    id: int = Field(description="Its number.")
    status_code: int = Field(description="The HTTP status that it would have had alone.", examples=[200])
    dead_letter: DeadLetter | None = Field(default=None, description="The settled dead letter.")
    error: ErrorResponse | None = Field(default=None, description="Why it was not settled.")


class SettleResponse(Answer):
    """The answers for several dead letters."""

    results: list[Settled] = Field(description="One for each, in the order of the request.")
