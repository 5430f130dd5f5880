"""What callers send and see of identities and tokens."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from common.json_rules import WholeNumber
from common.work import AgentType
from orchestrator.identities.model import PrincipalKind
from orchestrator.identities.permissions import Permission, Role
from orchestrator.identities.rules import NAME_PATTERN
from orchestrator.identities.tokens import Purpose

DAY = 86_400
YEARS = 10 * 366 * DAY

Name = Annotated[
    str, StringConstraints(pattern=NAME_PATTERN), Field(description="It is never given to anybody else later.")
]
Note = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IdentityRequest(_Body):
    """Somebody who is to be known."""

    name: Name = Field(examples=["ann"])
    kind: Literal[PrincipalKind.PERSON, PrincipalKind.SERVICE] = PrincipalKind.PERSON
    roles: list[Role] = Field(min_length=1, max_length=5, examples=[["operator"]])


class TokenRequest(_Body):
    """A token that is wanted."""

    principal_id: UUID = Field(description="Whose it will be.")
    scopes: list[Permission] | None = Field(
        default=None, min_length=1, max_length=20, description="Only these of what its owner may; by default all."
    )
    note: Note = Field(default="", description="What it is for.", examples=["backup job"])
    expires_in_seconds: WholeNumber | None = Field(
        default=None, ge=1, le=YEARS, description="For how long it counts; by default until it is revoked."
    )


class EnrolmentRequest(_Body):
    """An agent that is to enrol."""

    name: Name = Field(examples=["web-1"])
    agent_type: AgentType = Field(examples=["infra"])
    ttl_seconds: WholeNumber = Field(default=900, ge=1, le=DAY, description="For how long the enrolment token works.")


class EnrolRequest(_Body):
    """What an agent enrols with."""

    token: str = Field(min_length=1, max_length=200, description="The enrolment token, which works once.", repr=False)


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class IdentityOut(_Out):
    """Somebody who is known."""

    model_config = ConfigDict(from_attributes=True, title="Identity")

    principal_id: UUID
    kind: PrincipalKind
    name: str
    roles: list[Role]
    agent_id: UUID | None
    agent_type: str | None
    created_at: datetime
    created_by: str
    disabled_at: datetime | None
    disabled_by: str | None


class TokenOut(_Out):
    """What is known of a token, which is not the token itself."""

    model_config = ConfigDict(from_attributes=True, title="Token")

    token_id: UUID
    principal_id: UUID
    purpose: Purpose
    scopes: list[Permission] | None
    note: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To within some seconds.")
    used_at: datetime | None = Field(description="When an agent enrolled with it.")
    revoked_at: datetime | None
    revoked_by: str | None


class NewTokenOut(TokenOut):
    """A token that was just made: `token` is shown this once."""

    model_config = ConfigDict(from_attributes=True, title="NewToken")

    token: str = Field(repr=False)


class WhoAmI(_Out):
    """Who asks, as the token says."""

    principal_id: UUID
    kind: PrincipalKind
    name: str
    roles: list[Role]
    permissions: list[Permission]
    token_id: UUID | None = Field(description="Null where nobody is asked for a token.")
    agent_id: UUID | None


class EnrolmentOut(_Out):
    """An agent may enrol now: `token` is shown this once, and works once."""

    agent_id: UUID
    agent_type: str
    name: str
    token: str = Field(repr=False)
    expires_at: datetime
    routed: bool = Field(description="A route leads work to the pool; else the agent gets none from a bus.")


class Enrolled(_Out):
    """Who the agent is from now on, and its credential."""

    agent_id: UUID
    agent_type: str
    token: str = Field(description="The agent's own; it is shown this once.", repr=False)
    trusted_keys: list[str] = Field(description="The public keys (PEM) whose signatures the agent is to believe.")


class Ticket(_Out):
    """What opens one WebSocket: as the parameter `ticket`."""

    ticket: str = Field(repr=False)
    expires_in_seconds: int
