"""What the orchestrator orders an agent to do, each told apart by its `action`."""

import base64
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from common.artifacts import ArtifactName, PieceData, Sha256, check_piece
from common.json_rules import Line, check_line
from common.messages import (
    LONGEST_MESSAGE,
    AttemptNumber,
    ByteCount,
    CancelTask,
    Message,
    Renewed,
    StepName,
    Stored,
)

# More files than an attempt keeps, so that no order is endless.
MOST_NAMES = 1000


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


class StepsStored(Message):
    """How this attempt ended is in the ledger, or can never be: the host may forget it.

    The answer to a report in which the last inner step is final; `through` names it (`LAST_STEP`).
    """

    action: Literal["steps_stored"] = "steps_stored"
    task_id: UUID
    attempt: AttemptNumber
    through: StepName


class Settle(Message):
    """Say how this ended: the task has ended in the ledger, and its host, which owns the end, did not say how."""

    action: Literal["settle"] = "settle"
    task_id: UUID
    attempt: AttemptNumber


class ArtifactsStored(Message):
    """These files of an attempt are stored, or can never be: the agent may forget them.

    `refused` says why of those that are not stored; the others are in `names`.
    """

    action: Literal["artifacts_stored"] = "artifacts_stored"
    task_id: UUID
    attempt: AttemptNumber
    names: list[ArtifactName] = Field(default_factory=list, max_length=MOST_NAMES)
    refused: dict[ArtifactName, Annotated[str, Field(max_length=LONGEST_MESSAGE), AfterValidator(check_line)]] = Field(
        default_factory=dict, max_length=MOST_NAMES
    )


class FilePiece(Message):
    """The answer to `WantFile`: a piece of the file, as `ArtifactPiece` has it, or the `problem` with it."""

    action: Literal["file_piece"] = "file_piece"
    want_id: UUID
    offset: ByteCount = 0
    data: PieceData = ""
    size: ByteCount = 0
    sha256: Sha256 | Literal[""] = ""
    problem: Line = Field(default="", max_length=LONGEST_MESSAGE)

    @property
    def raw(self) -> bytes:
        return base64.b64decode(self.data)

    @model_validator(mode="after")
    def _is_a_piece_or_a_problem(self) -> Self:
        if self.problem:
            return self
        if not self.sha256:
            raise ValueError("sha256: is needed where there is no problem")
        check_piece(self.data, offset=self.offset, size=self.size)
        return self


Order = (
    CancelTask
    | Renewed
    | Stored
    | Heard
    | Pause
    | Drain
    | Resume
    | Leave
    | TrustKeys
    | StepsStored
    | Settle
    | ArtifactsStored
    | FilePiece
)


class Control(Message):
    """An order from the orchestrator to one agent."""

    order: Annotated[Order, Field(discriminator="action")]
