"""What may be done, and which role may do it: one table.

A route, a WebSocket and every use case names the permission that it needs; what names none lets nobody in.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType


class Permission(StrEnum):
    """One thing that somebody may do."""

    READ = "read"
    """See tasks, output, events, agents, dead letters, approvals and the look at the whole."""
    DISPATCH = "dispatch"
    """Dispatch, cancel and rerun work; create and cancel jobs; ask for approvals."""
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
    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"
    AGENT = "agent"


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
