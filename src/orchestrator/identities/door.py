"""The door: who makes a request is known before anything else of it is looked at, or it is turned away.

Outside the public list (`access.py`) nobody passes unknown. What a caller may do, each route says.
"""

import asyncio
import logging
from collections.abc import Collection
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import ChiffonError, TooManyRequests
from common.rest.identities import Permission
from orchestrator.database.pool import is_outage
from orchestrator.http.connections import CONNECTION, Connection
from orchestrator.http.context import logged_path, trace_of
from orchestrator.http.errors import close_code, headers_of, problem_of, reason_of, response
from orchestrator.http.limits import IS_SMALL
from orchestrator.identities.authenticator import Authenticator
from orchestrator.identities.model import ANYBODY, Caller, Unauthenticated
from orchestrator.identities.sessions import Sessions
from orchestrator.settings import OrchestratorSettings

log = logging.getLogger(__name__)

# Who may do one of these sends work, or what became of it; all others have little to say.
_HANDS_IN = frozenset({Permission.DISPATCH, Permission.WORK})
# Headers by which a proxy tells that it stands between: any of them, for each proxy sends others.
_OF_PROXIES = frozenset(
    (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip")
)
TRY_AGAIN_LATER = 1013
LONGEST_TICKET = 200


class Keeper(Protocol):
    """Decides who passes. `sessions` are the WebSockets that it watches, if any."""

    @property
    def sessions(self) -> Sessions | None: ...

    async def admit(self, scope: Scope) -> Caller:
        """Return who makes a request; raises `Unauthenticated` and `TooManyRequests`."""
        ...


class EverybodyOfThisHost:
    """Asks nobody for a token, and lets nobody pass who comes from another host, whatever address is listened on."""

    sessions = None

    async def admit(self, scope: Scope) -> Caller:
        # What a proxy passes on comes from anywhere, whatever it says.
        is_forwarded = any(name in _OF_PROXIES for name, _ in scope.get("headers", ()))
        if is_forwarded or not _is_near(address_of(scope)):
            raise Unauthenticated("This orchestrator asks nobody for a token, so it serves its own host only.")
        return ANYBODY


class Bearers:
    """Lets those pass who send a token; a browser's WebSocket may send a ticket instead."""

    def __init__(self, authenticator: Authenticator, sessions: Sessions) -> None:
        self._authenticator = authenticator
        self.sessions = sessions

    async def admit(self, scope: Scope) -> Caller:
        address = address_of(scope)
        token = _bearer_of(scope)
        if token is not None:
            return await self._authenticator.caller(token, address=address)
        ticket = _ticket_of(scope) if scope["type"] == "websocket" else None
        if ticket is not None:
            return await self._authenticator.caller_with_ticket(ticket, address=address)
        raise Unauthenticated("This needs a token: send it as `Authorization: Bearer …`.")


class NotStarted:
    """Keeps the door of an app that was not started: nobody can be asked about tokens yet."""

    sessions = None

    async def admit(self, scope: Scope) -> Caller:
        if OrchestratorSettings.load().authentication == "off":
            return await EverybodyOfThisHost().admit(scope)
        raise Unauthenticated("The orchestrator has not started.")


class Door:
    """Puts the caller into the scope of every request and WebSocket; answers 401 or 429 itself, or closes with 4401.

    Who keeps it is `app.state.keeper`. A WebSocket is closed when its token stops to count. A route of `public` is
    served without a caller; one of `detailed` is, too, but has a caller when one is known.
    """

    def __init__(self, app: ASGIApp, *, public: Collection[str], detailed: Collection[str]) -> None:
        self._app = app
        self._public = frozenset(public) - frozenset(detailed)
        self._detailed = frozenset(detailed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        keeper: Keeper = scope["app"].state.keeper
        try:
            caller = await keeper.admit(scope)
        except (Unauthenticated, TooManyRequests) as refusal:
            if scope["path"] in self._detailed and _bearer_of(scope) is None:
                await self._app(scope, receive, send)
                return
            _note(refusal, scope)
            await _refuse(refusal, scope, receive, send)
            return
        except Exception as error:
            if scope["path"] in self._detailed and is_outage(error):
                await self._app(scope, receive, send)
                return
            if scope["type"] != "websocket" or not is_outage(error):
                raise
            await _close(send, TRY_AGAIN_LATER, "the database is away; try again", accept=True)
            return
        state = scope.setdefault("state", {})
        state["caller"] = caller
        state[IS_SMALL] = caller.permissions.isdisjoint(_HANDS_IN)
        connection: Connection | None = state.get(CONNECTION)
        if connection is not None and caller.is_known:
            connection.recognise()
        state["asked_by"] = {"caller": caller.name, "token_id": caller.token_id}
        if scope["type"] == "websocket" and keeper.sessions is not None:
            await self._watched(keeper.sessions, caller, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _watched(self, sessions: Sessions, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with sessions.opened(caller) as ended:
                await self._until(ended, scope, receive, send)
        except TooManyRequests as refusal:
            await _refuse(refusal, scope, receive, send)

    async def _until(self, ended: asyncio.Event, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket until it ends or is to be closed."""
        accepted = False

        async def told(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message["type"] == "websocket.accept"
            await send(message)

        serving = asyncio.ensure_future(self._app(scope, receive, told))
        closing = asyncio.ensure_future(ended.wait())
        try:
            await asyncio.wait({serving, closing}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
                return
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            refusal = Unauthenticated("The token does not count any more.")
            await _close(send, close_code(refusal), reason_of(refusal), accept=not accepted)
        finally:
            for task in (serving, closing):
                task.cancel()
            await asyncio.gather(serving, closing, return_exceptions=True)


def address_of(scope: Scope) -> str:
    """Return where a request comes from; empty when it came over no network."""
    client = scope.get("client")
    return "" if client is None else str(client[0])


def _is_near(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return True  # a socket in the file system, or no network at all


def _bearer_of(scope: Scope) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1:
        return None
    scheme, _, token = given[0].decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _ticket_of(scope: Scope) -> str | None:
    values = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=50).get("ticket", [])
    return values[0] if len(values) == 1 and len(values[0]) <= LONGEST_TICKET else None


def _note(refusal: ChiffonError, scope: Scope) -> None:
    log.warning(
        "door.refused",
        extra={
            "trace_id": trace_of(scope),
            "address": address_of(scope),
            "path": logged_path(scope),
            "reason": str(refusal),
        },
    )


async def _refuse(refusal: Unauthenticated | TooManyRequests, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await _close(send, close_code(refusal), reason_of(refusal), accept=True)
        return
    await response(problem_of(refusal, trace_of(scope)), headers_of(refusal))(scope, receive, send)


async def _close(send: Send, code: int, reason: str, *, accept: bool) -> None:
    # A browser is told the code and the reason only of a WebSocket that was open.
    if accept:
        await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": code, "reason": reason})
