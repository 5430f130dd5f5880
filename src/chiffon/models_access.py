"""What the orchestrator answers about identities and tokens, as frozen models."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from chiffon.models import Answer


class WhoAmI(Answer):
    principal_id: UUID
    kind: str
    name: str
    roles: list[str]
    permissions: list[str]
    token_id: UUID | None
    agent_id: UUID | None


class Identity(Answer):
    principal_id: UUID
    kind: str
    name: str
    roles: list[str]
    agent_id: UUID | None
    agent_type: str | None
    created_at: datetime
    created_by: str
    disabled_at: datetime | None
    disabled_by: str | None


class Token(Answer):
    """What is known of a token, which is not the token."""

    token_id: UUID
    principal_id: UUID
    purpose: str
    scopes: list[str] | None
    note: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None


class NewToken(Token):
    token: str = Field(repr=False)


class Enrolment(Answer):
    """An agent may enrol, once, with `token`."""

    agent_id: UUID
    agent_type: str
    name: str
    token: str = Field(repr=False)
    expires_at: datetime
    routed: bool = True
