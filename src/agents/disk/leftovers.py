"""What the journal of an earlier life says about attempts that were started and have no end."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError

from agents.disk.journal import Ended, Opened, ProcessStarted, Started, Unended
from agents.disk.spool_lines import Key

log = logging.getLogger(__name__)

_ENTRY: TypeAdapter[Opened | Started | ProcessStarted | Ended] = TypeAdapter(
    Annotated[Opened | Started | ProcessStarted | Ended, Field(discriminator="event")]
)


def sessions(lines: Iterable[bytes], *, host_boot_id: str) -> frozenset[UUID]:
    """Return the earlier processes of which nothing in the journal is lost: the host has run since they began."""
    found = set()
    for line in filter(None, lines):
        with suppress(ValidationError):
            entry = _ENTRY.validate_json(line)
            if isinstance(entry, Opened) and host_boot_id and entry.host_boot_id == host_boot_id:
                found.add(entry.session)
    return frozenset(found)


def begun(lines: Iterable[bytes]) -> list[Key]:
    """Return the attempts that were begun, the oldest first."""
    found = []
    for line in filter(None, lines):
        with suppress(ValidationError):
            entry = _ENTRY.validate_json(line)
            if isinstance(entry, Started):
                found.append(Key(entry.task_id, entry.attempt))
    return found


def unended(lines: Iterable[bytes]) -> list[Unended]:
    """Return the attempts without an end, the oldest first. Lines that make no sense are logged and left out."""
    started: dict[tuple[UUID, int], Started] = {}
    processes: dict[tuple[UUID, int], dict[int, ProcessStarted]] = {}
    unreadable = 0
    for line in filter(None, lines):
        try:
            entry = _ENTRY.validate_json(line)
        except ValidationError:
            unreadable += 1
            continue
        if isinstance(entry, Opened):
            continue
        attempt = (entry.task_id, entry.attempt)
        match entry:
            case Started():
                started[attempt] = entry
            case ProcessStarted():
                processes.setdefault(attempt, {})[entry.pid] = entry
            case Ended():
                started.pop(attempt, None)
    if unreadable:
        log.warning("journal.unreadable_lines", extra={"lines": unreadable})
    return [Unended(entry, tuple(processes.get(attempt, {}).values())) for attempt, entry in started.items()]
