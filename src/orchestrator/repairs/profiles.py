"""The services that this orchestrator can have repaired, as its file describes them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ErrorCode, Invalid
from common.services import Service, read_services

# How many known names an error lists.
MOST_NAMED = 20


class UnknownService(Invalid, ValueError):
    """The services file has no such service."""

    code = ErrorCode.SERVICE_UNKNOWN

    def __init__(self, name: str, known: Mapping[str, Service]) -> None:
        more = len(known) - MOST_NAMED
        names = ", ".join(sorted(known)[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        super().__init__(f"target_service {name!r} is not known. Allowed: {names or 'none, for there is no service'}.")


@dataclass(frozen=True, slots=True)
class Profile:
    """A service with the name that requests give it."""

    name: str
    service: Service

    @property
    def compose_service(self) -> str:
        """What the compose files call it."""
        return self.service.service or self.name


@dataclass(frozen=True, slots=True)
class Services:
    """All services by their names; they stay the same as long as the process runs. `source`: where they came from."""

    known: Mapping[str, Service] = field(default_factory=dict)
    source: str = "no file"

    def get(self, name: str) -> Profile:
        """Return the service that a request means, in any case and with spaces around it; raises `UnknownService`."""
        meant = name.strip().lower()
        if meant not in self.known:
            raise UnknownService(name.strip(), self.known)
        return Profile(meant, self.known[meant])


def open_services(path: Path | None) -> Services:
    """Return the services in a file, none without one; raises `InvalidServices`, which names every mistake."""
    return Services() if path is None else Services(read_services(path), source=str(path))
