"""What may be done, and which role may do it: one table.

A route, a WebSocket and every use case names the permission that it needs; what names none lets nobody in.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from common.rest.identities import Permission, Role

_VIEWER = frozenset({Permission.READ})

PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.VIEWER: _VIEWER,
        Role.OPERATOR: _VIEWER | {Permission.DISPATCH, Permission.OPERATE},
        Role.APPROVER: _VIEWER | {Permission.APPROVE},
        Role.ADMIN: _VIEWER | {Permission.DISPATCH, Permission.OPERATE, Permission.AUDIT, Permission.ADMINISTER},
        Role.AGENT: frozenset({Permission.WORK}),
    }
)


def permissions_of(roles: Iterable[Role], scopes: Iterable[Permission] | None = None) -> frozenset[Permission]:
    """Return what somebody of these roles may do; a token with scopes may do only those of it."""
    allowed = frozenset[Permission]().union(*(PERMISSIONS[role] for role in roles))
    return allowed if scopes is None else allowed & frozenset(scopes)
