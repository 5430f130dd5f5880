"""What the orchestrator orders an agent to do, each told apart by its `action`."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from common.messages import CancelTask, Message, Renewed, Stored


class Heard(Message):
    """The heartbeat with this id arrived: the way there and back works.

    `granted` is how many tasks the session was granted until then; None: it did not ask for work.
    """

    action: Literal["heard"] = "heard"
    beat_id: UUID
    granted: int | None = None


class Pause(Message):
    """Take no new work until then; what runs goes on."""

    action: Literal["pause"] = "pause"
    until: datetime
    note: str = ""


class Drain(Message):
    """Leave when what runs is done; meant only for the process of `started_at`: a later one may work."""

    action: Literal["drain"] = "drain"
    started_at: datetime
    note: str = ""


class Resume(Message):
    """Take work again."""

    action: Literal["resume"] = "resume"


class Leave(Message):
    """Stop: an earlier process with the same agent id still runs. Meant only for the process of `boot_id`."""

    action: Literal["leave"] = "leave"
    boot_id: UUID
    reason: str


class TrustKeys(Message):
    """The orchestrator's keys have changed: the same claims about all of them, signed with each.

    An agent follows it when one of the signatures is of a key that it trusts.
    """

    action: Literal["trust_keys"] = "trust_keys"
    signatures: list[str] = Field(min_length=1, max_length=100)


Order = CancelTask | Renewed | Stored | Heard | Pause | Drain | Resume | Leave | TrustKeys


class Control(Message):
    """An order from the orchestrator to one agent."""

    order: Annotated[Order, Field(discriminator="action")]
