"""Which agent suits a task, and which of those is the best: pure decisions."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from common.confinement import EVERYWHERE, UNCONFINED, Confinement
from common.labels import labels_of
from orchestrator.placement.model import Aim, Host

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


def anybody(agent_type: str) -> Aim:
    """Return the aim at any agent of a pool."""
    return Aim("", agent_type, None, {}, {})


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


def place(aim: Aim, hosts: Sequence[Host], count: int) -> list[UUID]:
    """Return which agents get the next tickets of an aim, at most `count`, the best first.

    More of what is preferred goes before more room; among equals the id decides. Nobody gets more than it has room for.
    """
    room = {host.agent_id: host.free for host in hosts if _may(aim, host)}
    liking = {host.agent_id: preference(aim, host.labels) for host in hosts}
    placed: list[UUID] = []
    while len(placed) < count and any(free > 0 for free in room.values()):
        best = max(room, key=lambda agent_id: (room[agent_id] > 0, liking[agent_id], room[agent_id], -agent_id.int))
        room[best] -= 1
        placed.append(best)
    return placed


def place_again(
    aim: Aim, hosts: Sequence[Host], refused: Mapping[UUID, timedelta], *, memory: timedelta
) -> UUID | None:
    """Return which agent gets a ticket that some have refused, so long ago; None when there is nobody to ask.

    One that has not comes first, then the one that did so longest ago, if that is longer than `memory`.
    """
    if best := place(aim, [host for host in hosts if host.agent_id not in refused], 1):
        return best[0]
    again = [host for host in hosts if host.agent_id in refused and refused[host.agent_id] > memory]
    again.sort(key=lambda host: refused[host.agent_id], reverse=True)
    return next((host.agent_id for host in again if place(aim, [host], 1)), None)


def unmet(aim: Aim, labels: Mapping[str, Any]) -> list[str]:
    """Return the required labels that an agent lacks."""
    return [name for name, wanted in aim.requires.items() if not has(labels, name, wanted)]


def _may(aim: Aim, host: Host) -> bool:
    return host.free > 0 and host.agent_type == aim.agent_type and suits(aim, host.agent_id, host.labels)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
