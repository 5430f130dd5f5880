"""Who may take a task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Aim:
    """Whom a task aims at, within its pool: one agent, or those that have all of `requires`.

    `prefers` breaks ties. `key` is the same for the same aim, and empty for none.
    """

    key: str
    agent_type: str
    agent_id: UUID | None
    requires: Mapping[str, Any]
    prefers: Mapping[str, Any]
