"""Keep the door: who may pass, the loops that keep that up to date, and the use cases behind it."""

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from common.errors import StartupRefused
from common.loop import Health, Wake, forever, keep_running
from orchestrator.database.notifications import listen
from orchestrator.database.pool import Pool
from orchestrator.http.origin import LOOPBACK
from orchestrator.identities.authenticator import Authenticator, Limits
from orchestrator.identities.door import Bearers, EverybodyOfThisHost, Keeper
from orchestrator.identities.enrolment import EnrolmentService
from orchestrator.identities.service import IdentityService
from orchestrator.identities.sessions import Sessions
from orchestrator.identities.tickets import TicketService
from orchestrator.settings import OrchestratorSettings

CHANNEL = "chiffon_identity"
CHECK_SESSIONS = timedelta(milliseconds=500)
NOTE_USE = timedelta(seconds=10)


class NobodyIsAsked(StartupRefused):
    def __init__(self, host: str) -> None:
        super().__init__(
            f"CHIFFON_AUTHENTICATION is off, and {host} can be reached from other hosts. Either ask for tokens "
            '(authentication = "required") or listen on 127.0.0.1.'
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """Who keeps the door, and what has to run for that."""

    keeper: Keeper
    loops: dict[str, Coroutine[None, None, None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identities:
    """The use cases of identities."""

    service: IdentityService
    enrolment: EnrolmentService
    tickets: TicketService


def build_identities(
    settings: OrchestratorSettings, pool: Pool, *, trusted_keys: Callable[[], Sequence[str]] = tuple
) -> Identities:
    """Return the use cases; `trusted_keys` returns what an agent that enrols is to believe."""
    enrolment = EnrolmentService(pool, failures_per_second=settings.failed_logins_per_second, trusted_keys=trusted_keys)
    return Identities(IdentityService(pool), enrolment, TicketService(pool))


def check_authentication(settings: OrchestratorSettings) -> None:
    """Raise `NobodyIsAsked` when strangers could do everything."""
    if settings.authentication == "off" and settings.host not in LOOPBACK:
        raise NobodyIsAsked(settings.host)


@asynccontextmanager
async def keep_door(settings: OrchestratorSettings, pool: Pool, health: Health) -> AsyncIterator[Kept]:
    """Give who keeps the door; its loops are to be run as long as it is open."""
    check_authentication(settings)
    if settings.authentication == "off":
        yield Kept(EverybodyOfThisHost())
        return
    limits = Limits(settings.token_requests_per_second, settings.failed_logins_per_second)
    async with Authenticator(pool, limits) as authenticator:
        yield _kept_by(authenticator, settings, pool, health)


def _kept_by(authenticator: Authenticator, settings: OrchestratorSettings, pool: Pool, health: Health) -> Kept:
    sessions, news = Sessions(pool, limit=settings.token_websockets), Wake()

    def changed(_: str) -> None:
        health.well("listen_for_identities")
        authenticator.changed()
        news.ring()

    return Kept(
        Bearers(authenticator, sessions),
        {
            "listen_for_identities": keep_running(
                "listen_for_identities", partial(listen, pool.database, CHANNEL, changed), health=health
            ),
            "check_sessions": forever("check_sessions", sessions, wake=news, every=CHECK_SESSIONS, health=health),
            "note_token_use": forever("note_token_use", authenticator, wake=Wake(), every=NOTE_USE, health=health),
        },
    )
