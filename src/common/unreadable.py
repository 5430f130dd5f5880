"""What an agent says of a message that it cannot read.

An agent may write replies and nothing else, so the message itself travels in one.
"""

import base64
import re
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from common.messages import Message
from common.work import AGENT_TYPE_PATTERN

MAX_UNREADABLE_BYTES = 1024 * 1024
MAX_REASON = 2000
WORK_QUEUE = re.compile(rf"work\.({AGENT_TYPE_PATTERN.strip('^$')})\.([0-9a-f-]+)")

Base64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]


class Unreadable(Message):
    """An agent found a message in one of its queues that it cannot read, and hands it over to whoever can look at it.

    `body` is base64, of the first MiB at most; `body_bytes` says how long it was.
    """

    agent_id: UUID
    queue: str = Field(max_length=255)
    reason: str = Field(max_length=MAX_REASON)
    message_id: str = Field(default="", max_length=255)
    priority: int = Field(default=3, ge=0, le=255)
    body: Base64 = Field(max_length=MAX_UNREADABLE_BYTES * 4 // 3 + 4)
    body_bytes: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_from_a_queue_of_this_agent(self) -> Self:
        if self.queue != f"control.{self.agent_id}" and self.pool is None:
            raise ValueError(f"queue: {self.queue!r} is none that agent {self.agent_id} reads")
        return self

    @property
    def pool(self) -> str | None:
        """The pool that the agent's work queue names, if the message was in that queue."""
        queue = WORK_QUEUE.fullmatch(self.queue)
        return queue[1] if queue is not None and queue[2] == str(self.agent_id) else None

    @property
    def raw(self) -> bytes:
        return base64.b64decode(self.body)
