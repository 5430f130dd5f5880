"""Which names and roles somebody may have: pure decisions."""

import re
from collections.abc import Collection

from common.errors import InvalidField
from common.rest.identities import NAME_PATTERN, PrincipalKind, Role

# What events call those who are nobody in particular.
RESERVED = frozenset({"anybody", "bootstrap", "caller", "orchestrator"})


def check_name(name: str) -> None:
    """Raise `InvalidField` for a name that nobody may have."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidField("name", "must be 1 to 100 letters, digits and . _ @ + -, beginning with a letter or digit")
    if name.lower() in RESERVED:
        raise InvalidField("name", f"must not be one of {', '.join(sorted(RESERVED))}")


def check_roles(kind: PrincipalKind, roles: Collection[Role]) -> None:
    """Raise `InvalidField` for roles that somebody of this kind cannot have."""
    if kind is PrincipalKind.AGENT:
        raise InvalidField("kind", "must be person or service; an agent becomes known by enrolling")
    if not roles:
        raise InvalidField("roles", "must name at least one role")
    if Role.AGENT in roles:
        raise InvalidField("roles", "must not hold agent: an agent becomes known by enrolling")
    if Role.APPROVER in roles and kind is not PrincipalKind.PERSON:
        raise InvalidField("roles", "may hold approver for a person only")


def name_from(text: str) -> str:
    """Return a name that is allowed and resembles the text."""
    name = re.sub(r"[^A-Za-z0-9._@+-]", "-", text).lstrip("._@+-")[:100]
    return name if name and name.lower() not in RESERVED else "admin"
