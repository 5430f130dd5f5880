"""What callers see of output."""

from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.messages import Stream
from orchestrator.output.model import Page


class OutputPage(BaseModel):
    """A part of what a task wrote to one stream. Offsets count bytes of UTF-8."""

    model_config = ConfigDict(from_attributes=True)

    task_id: UUID
    attempt: int
    stream: Stream
    offset: int = Field(description="Where the text begins; behind the one asked for if that was inside a character.")
    next_offset: int = Field(description="Ask for this next.")
    text: str
    complete: bool = Field(description="Nothing will follow `next_offset`.")
    dropped: int = Field(
        default=0, description="How many bytes of the stream came after the limit and were not kept; known at the end."
    )

    @classmethod
    def of(cls, page: Page) -> "OutputPage":
        return cls.model_validate(page)
