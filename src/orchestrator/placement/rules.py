"""Which agent suits a task, and which of those is the best: pure decisions."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from common.confinement import EVERYWHERE, UNCONFINED, Confinement
from common.labels import labels_of
from orchestrator.placement.model import Aim

AGENT_ID = "agent_id"
REQUIRED = "required_capabilities"
PREFERRED = "preferred"
ENFORCES = "enforces"


def aim_of(agent_type: str, hints: Mapping[str, Any], confinement: Confinement = UNCONFINED) -> Aim | None:
    """Return whom a task with these hints aims at; None for anybody of its pool.

    Work that must be confined needs an agent that can do that, and says so with the label `enforces`.
    """
    walls = sorted(confinement.demands - EVERYWHERE)
    agent_id, required = hints.get(AGENT_ID), hints.get(REQUIRED)
    prefers = labels_of(hints.get(PREFERRED) or {})
    if agent_id is None and not required and not prefers and not walls:
        return None
    requires = labels_of(required or {})
    if walls:
        wanted = requires.get(ENFORCES, [])
        requires[ENFORCES] = sorted({*walls, *(map(str, wanted) if isinstance(wanted, list) else [str(wanted)])})
    content = [agent_type, None if agent_id is None else str(agent_id), requires, prefers]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    key = hashlib.sha256(text.encode()).hexdigest()[:24]
    return Aim(key, agent_type, None if agent_id is None else UUID(str(agent_id)), requires, prefers)


def has(labels: Mapping[str, Any], name: str, wanted: Any) -> bool:
    """Say whether a label meets what is wanted of it.

    A number must be at least as large, a list must hold all that is in the list, a text or a truth value is the same; a
    list also has each single text that is in it.
    """
    if name not in labels:
        return False
    have = labels[name]
    if isinstance(wanted, list):
        return set(wanted) <= set(have if isinstance(have, list) else [have])
    if isinstance(have, list):
        return wanted in have
    if _is_number(wanted):
        return _is_number(have) and have >= wanted
    return type(have) is type(wanted) and bool(have == wanted)


def suits(aim: Aim, agent_id: UUID, labels: Mapping[str, Any]) -> bool:
    """Say whether an agent of the pool may take what aims there."""
    if aim.agent_id is not None and aim.agent_id != agent_id:
        return False
    return all(has(labels, name, wanted) for name, wanted in aim.requires.items())


def preference(aim: Aim, labels: Mapping[str, Any]) -> int:
    """Return how many of the preferred labels an agent has."""
    return sum(has(labels, name, wanted) for name, wanted in aim.prefers.items())


def unmet(aim: Aim, labels: Mapping[str, Any]) -> list[str]:
    """Return the required labels that an agent lacks."""
    return [name for name, wanted in aim.requires.items() if not has(labels, name, wanted)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
