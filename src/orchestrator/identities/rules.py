"""Which names and roles somebody may have: pure decisions."""

import re
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from common.errors import InvalidField
from common.labels import AUTHORITY, labels_of
from common.rest.identities import NAME_PATTERN, PrincipalKind, Role

# What events call those who are nobody in particular.
RESERVED = frozenset({"anybody", "bootstrap", "caller", "orchestrator"})


def check_name(name: str) -> None:
    """Raise `InvalidField` for a name that nobody may have."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidField("name", "must be 1 to 100 letters, digits and . _ @ + -, beginning with a letter or digit")
    if _is_id(name):
        raise InvalidField("name", "must not have the form of an id, by which agents are named, too")
    if name.lower() in RESERVED:
        raise InvalidField("name", f"must not be one of {', '.join(sorted(RESERVED))}")


def _is_id(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def pinned(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels as they are pinned to an agent: those that carry authority are lists, and one text is one of those.

    Raises `InvalidField`.
    """
    lists = {name: [value] if isinstance(value, str) else value for name, value in labels.items() if name in AUTHORITY}
    for name, value in lists.items():
        if not isinstance(value, list):
            raise InvalidField(f"labels.{name}", "must be a list of texts")
    return labels_of({**labels, **lists})


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
