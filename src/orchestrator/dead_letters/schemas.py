"""What callers see of dead letters, and what they order."""

import base64
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from common.json_rules import WholeNumber
from orchestrator.dead_letters.model import Kind, Letter, State
from orchestrator.dead_letters.rules import parse
from orchestrator.http.errors import ErrorResponse

MOST_AT_ONCE = 100
LARGEST_ID = 2**63 - 1

LetterId = Annotated[WholeNumber, Field(ge=1, le=LARGEST_ID)]


class DeadLetter(BaseModel):
    """Something that nobody could deal with."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    kind: Kind = Field(description="A message, or a task whose attempts all met with a failing agent or host.")
    state: State = Field(description="waiting, replayed or discarded")
    queue: str = Field(description="The queue that it came from.", examples=["work.infra"])
    type: str = Field(description="The type of the message, or the work type of the task.")
    reason: str = Field(description="Why nobody could deal with it.")
    message_id: str | None
    task_id: UUID | None = Field(description="The task, for one of kind task.")
    body_bytes: int = Field(description="How long the message was.")
    body_truncated: bool = Field(description="Only the first MiB was kept, so it cannot be replayed.")
    at: datetime = Field(description="When it was noted.")
    settled_at: datetime | None
    settled_by: str | None
    replayed_as: UUID | None = Field(description="The task that the replay of a task made.")


class DeadLetterDetail(DeadLetter):
    """A dead letter with its body."""

    body: str = Field(description="The message, as far as it was kept.")
    body_encoding: Literal["utf-8", "base64"] = Field(description="base64 when it is no text.")
    body_json: JsonValue | None = Field(description="The message as JSON, when it is JSON that can be shown as such.")

    @classmethod
    def of(cls, letter: Letter) -> "DeadLetterDetail":
        common = DeadLetter.model_validate(letter).model_dump()
        encoding: Literal["utf-8", "base64"] = "utf-8"
        try:
            body = letter.body.decode()
        except UnicodeDecodeError:
            encoding, body = "base64", base64.b64encode(letter.body).decode()
        return cls(**{**common, "body": body, "body_encoding": encoding, "body_json": parse(letter.body)})


class DeadLetterPage(BaseModel):
    items: list[DeadLetter]
    next_cursor: str | None = Field(default=None, description="Pass it as `cursor` to get the next page.")


class SettleRequest(BaseModel):
    """Up to 100 dead letters to settle, each answered on its own."""

    model_config = ConfigDict(extra="forbid")

    ids: list[LetterId] = Field(min_length=1, max_length=MOST_AT_ONCE, examples=[[1, 2]])


class SettleItem(BaseModel):
    id: int
    status_code: int = Field(description="The HTTP status that it would have had alone.", examples=[200])
    dead_letter: DeadLetter | None = None
    error: ErrorResponse | None = None


class SettleResponse(BaseModel):
    results: list[SettleItem]
