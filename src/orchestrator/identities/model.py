"""Who somebody is."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from common.errors import ChiffonError, ErrorCode
from orchestrator.identities.permissions import Permission, Role


class PrincipalKind(StrEnum):
    PERSON = "person"
    SERVICE = "service"
    AGENT = "agent"


class Forbidden(ChiffonError):
    """Whoever asks is known, and may not do this."""

    code = ErrorCode.FORBIDDEN


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, as its token says. `name` is what events call the actor.

    All tokens of a person share its `principal_id`. `token_id` is None where nobody was asked for a token, `agent_id`
    for everybody but agents.
    """

    principal_id: UUID
    kind: PrincipalKind
    name: str
    roles: frozenset[Role]
    permissions: frozenset[Permission]
    token_id: UUID | None = None
    agent_id: UUID | None = None

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raise `Forbidden` unless the caller may do this."""
        if not self.may(permission):
            raise Forbidden(f"{self.name!r} may not do this: it needs the permission {permission.value!r}.")


# Who calls where the settings ask nobody for a token; allowed on loopback only.
ANYBODY = Caller(
    principal_id=UUID(int=0),
    kind=PrincipalKind.SERVICE,
    name="anybody",
    roles=frozenset({Role.ADMIN, Role.AGENT, Role.APPROVER}),
    permissions=frozenset(Permission),
)
