"""What the orchestrator orders an agent to do, each told apart by its `action`."""

from typing import Annotated, Literal

from pydantic import Field

from common.messages import CancelTask, Drain, Heard, Message, Pause, Renewed, Resume, Stored
from common.seal import Seal


class TrustKeys(Message):
    """The orchestrator's keys have changed: the same statement about all of them, signed with each.

    An agent follows it when one of the signatures is of a key that it trusts.
    """

    action: Literal["trust_keys"] = "trust_keys"
    seals: list[Seal] = Field(min_length=1, max_length=100)


Order = CancelTask | Renewed | Stored | Heard | Pause | Drain | Resume | TrustKeys


class Control(Message):
    """An order from the orchestrator to one agent."""

    order: Annotated[Order, Field(discriminator="action")]
