"""Identities, tokens and enrolment, as callers see and order them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from common.json_rules import WholeNumber, check_line
from common.labels import Labels
from common.rest.base import Answer, OrNewer, Request
from common.work import AgentType

DAY = 86_400
YEARS = 10 * 366 * DAY

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$"

Name = Annotated[
    str, StringConstraints(pattern=NAME_PATTERN), Field(description="The name, which is never given to another later.")
]
Note = Annotated[str, Field(max_length=200), AfterValidator(check_line)]


class PrincipalKind(StrEnum):
    """What an identity is."""

    PERSON = "person"
    SERVICE = "service"
    AGENT = "agent"


class Permission(StrEnum):
    """One thing that a caller may do."""

    READ = "read"
    """See tasks, output, events, agents, dead letters, approvals and the look at the whole."""
    DISPATCH = "dispatch"
    """Dispatch, cancel and rerun work; create and cancel jobs; ask for approvals, and what the policy says of work."""
    OPERATE = "operate"
    """Pause, drain and resume agents; settle dead letters."""
    APPROVE = "approve"
    """Say yes or no to an approval; whether it counts, the rule says."""
    AUDIT = "audit"
    """Query, export and verify the audit log."""
    ADMINISTER = "administer"
    """Make and revoke identities, tokens and enrolments; rotate keys."""
    WORK = "work"
    """Claim and report work as the agent that one is, over the queue API."""


class Role(StrEnum):
    """What an identity is entrusted with: a set of permissions."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"
    AGENT = "agent"


class TokenPurpose(StrEnum):
    """What a token lets its bearer do: use the API, work as an agent, or become an agent once."""

    API = "api"
    AGENT = "agent"
    ENROLMENT = "enrolment"


class IdentityRequest(Request):
    """A person or a service to create."""

    name: Name = Field(examples=["ann"])
    kind: Literal[PrincipalKind.PERSON, PrincipalKind.SERVICE] = Field(
        default=PrincipalKind.PERSON, description="person or service; an agent is created by enrolling"
    )
    roles: list[Role] = Field(
        min_length=1, max_length=5, description="What it may do, together.", examples=[["operator"]]
    )


class TokenRequest(Request):
    """A token to create."""

    principal_id: UUID = Field(description="Whose it will be.")
    scopes: list[Permission] | None = Field(
        default=None, min_length=1, max_length=20, description="Only these of what its owner may; by default all."
    )
    note: Note = Field(default="", description="What it is for.", examples=["backup job"])
    expires_in_seconds: WholeNumber | None = Field(
        default=None, ge=1, le=YEARS, description="For how long it counts; by default until it is revoked."
    )


class EnrolmentRequest(Request):
    """An agent that is to enrol."""

    name: Name = Field(examples=["web-1"])
    agent_type: AgentType = Field(
        description="The pool that it will belong to; nothing that the agent says changes it.", examples=["infra"]
    )
    labels: Labels = Field(
        default_factory=dict,
        description="Labels that are pinned to it: nothing that it says changes them. Of `enforces` and `secrets` an "
        "agent that enrolled has no more than is pinned here.",
        examples=[{"zone": "eu", "enforces": ["network_off", "sandbox"]}],
    )
    ttl_seconds: WholeNumber = Field(default=900, ge=1, le=DAY, description="For how long the enrolment token works.")


class EnrolRequest(Request):
    """What an agent enrols with."""

    token: str = Field(min_length=1, max_length=200, description="The enrolment token, which works once.", repr=False)


class Identity(Answer):
    """A person, a service or an agent."""

    principal_id: UUID = Field(description="Its id.")
    kind: OrNewer[PrincipalKind] = Field(description="person, service or agent")
    name: str = Field(description="Its name, which is never given to another.")
    roles: list[OrNewer[Role]] = Field(description="What it may do, together.")
    agent_id: UUID | None = Field(description="The id of the agent that it is.")
    agent_type: str | None = Field(description="The pool of the agent that it is.")
    labels: dict[str, JsonValue] = Field(default_factory=dict, description="The labels that are pinned to the agent.")
    created_at: datetime = Field(description="When it was created.")
    created_by: str = Field(description="Who created it.")
    disabled_at: datetime | None = Field(description="When it was disabled, for ever.")
    disabled_by: str | None = Field(description="Who disabled it.")


class Token(Answer):
    """What is known of a token, which is not the token itself."""

    token_id: UUID = Field(description="Its id, which is not secret.")
    principal_id: UUID = Field(description="Whose it is.")
    purpose: OrNewer[TokenPurpose] = Field(description="What it is for.")
    scopes: list[OrNewer[Permission]] | None = Field(description="Only these of what its owner may; null: all.")
    note: str = Field(description="What it is for, for people.")
    created_at: datetime = Field(description="When it was created.")
    created_by: str = Field(description="Who created it.")
    expires_at: datetime | None = Field(description="It counts until then; null: until it is revoked.")
    last_used_at: datetime | None = Field(description="To within some seconds.")
    used_at: datetime | None = Field(description="When an agent enrolled with it.")
    revoked_at: datetime | None = Field(description="When it was revoked.")
    revoked_by: str | None = Field(description="Who revoked it.")
    claimed_at: datetime | None = Field(
        description="Since when its owner alone knows it; null: who made it does, too, and it lets nobody approve."
    )


class NewToken(Token):
    """A token that was just made: `token` is shown this once."""

    token: str = Field(description="The token itself.", repr=False)


class WhoAmI(Answer):
    """The caller, as its token says."""

    principal_id: UUID = Field(description="Its id.")
    kind: OrNewer[PrincipalKind] = Field(description="person, service or agent")
    name: str = Field(description="Its name.")
    roles: list[OrNewer[Role]] = Field(description="The roles of its identity.")
    permissions: list[OrNewer[Permission]] = Field(description="What may be done with this token.")
    token_id: UUID | None = Field(description="The token; null where no token is asked for.")
    agent_id: UUID | None = Field(description="The agent that it is.")


class Enrolment(Answer):
    """An agent may enrol now: `token` is shown this once, and works once."""

    agent_id: UUID = Field(description="The id that the agent will have.")
    agent_type: str = Field(description="The pool that it will belong to.")
    labels: dict[str, JsonValue] = Field(default_factory=dict, description="The labels that are pinned to it.")
    name: str = Field(description="Its name.")
    token: str = Field(description="The enrolment token.", repr=False)
    expires_at: datetime = Field(description="The token works until then.")
    routed: bool = Field(description="A route leads work to the pool; else the agent gets none from a bus.")


class Enrolled(Answer):
    """The agent's identity from now on, and its credential."""

    agent_id: UUID = Field(description="The agent's id.")
    agent_type: str = Field(description="The pool that it belongs to.")
    token: str = Field(description="The agent's own; it is shown this once.", repr=False)
    trusted_keys: list[str] = Field(description="The public keys (PEM) whose signatures the agent is to believe.")


class WebSocketTicket(Answer):
    """What opens one WebSocket: as the parameter `ticket`."""

    ticket: str = Field(description="The ticket, which works once.", repr=False)
    expires_in_seconds: int = Field(description="How long it works.")
