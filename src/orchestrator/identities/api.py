"""The REST endpoints of identities, tokens and enrolment."""

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query, Request

from common.errors import Conflict
from common.rest.identities import (
    Enrolled,
    Enrolment,
    EnrolmentRequest,
    EnrolRequest,
    Identity,
    IdentityRequest,
    NewToken,
    Permission,
    Token,
    TokenRequest,
    WebSocketTicket,
    WhoAmI,
)
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.routes import Router
from orchestrator.http.strict import Digits
from orchestrator.identities.access import Anybody, MayAdminister, requires
from orchestrator.identities.door import address_of
from orchestrator.identities.door_keeping import Identities
from orchestrator.identities.model import Principal
from orchestrator.identities.service import Issued
from orchestrator.identities.tickets import LASTS

Responses = dict[int | str, dict[str, Any]]

PROBLEMS: Responses = {
    401: {"content": ERROR_CONTENT, "description": "Nobody knows who asks (4001)."},
    403: {"content": ERROR_CONTENT, "description": "Whoever asks may not do this (4003)."},
    422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
    429: {"content": ERROR_CONTENT, "description": "Too many requests (4029); `Retry-After` says how long to wait."},
    500: {"content": ERROR_CONTENT},
    503: {"content": ERROR_CONTENT},
}
TAKEN: Responses = {400: {"content": ERROR_CONTENT, "description": "It does not fit how things stand (2002)."}}
NOT_FOUND: Responses = {404: {"content": ERROR_CONTENT, "description": "There is no such identity or token (4002)."}}
REFUSED: Responses = {403: {"content": ERROR_CONTENT, "description": "The enrolment token does not count (4004)."}}

ADMINISTER = requires(Permission.ADMINISTER)

router = Router(prefix="/api/v1", tags=["identities"], responses=PROBLEMS)


async def get_identities(request: Request) -> Identities:
    """Return the services of the running app."""
    identities: Identities = request.app.state.identities
    return identities


Services = Annotated[Identities, Depends(get_identities)]


@router.get("/whoami", summary="Who asks")
async def whoami(caller: Anybody) -> WhoAmI:
    """Return who the token belongs to, and what may be done with it."""
    return WhoAmI(
        principal_id=caller.principal_id,
        kind=caller.kind,
        name=caller.name,
        roles=sorted(caller.roles),
        permissions=sorted(caller.permissions),
        token_id=caller.token_id,
        agent_id=caller.agent_id,
    )


@router.post("/ws-ticket", summary="Open a WebSocket from a browser")
async def create_ws_ticket(caller: Anybody, services: Services) -> WebSocketTicket:
    """Return a ticket that opens one WebSocket, as its parameter `ticket`, within half a minute.

    A program sends its token in the header instead.
    """
    return WebSocketTicket(ticket=await services.tickets.give(caller), expires_in_seconds=int(LASTS.total_seconds()))


@router.post("/identities", status_code=HTTPStatus.CREATED, summary="Make somebody known", responses={**TAKEN})
async def create_identity(wanted: IdentityRequest, services: Services, caller: MayAdminister) -> Identity:
    """Make a person or a service known. An agent becomes known by enrolling."""
    return _shown(await services.service.create(wanted.kind, wanted.name, wanted.roles, by=caller.name))


@router.get("/identities", dependencies=[ADMINISTER], summary="List everybody")
async def list_identities(services: Services) -> list[Identity]:
    """Return people, services and agents by name, those who are disabled as well."""
    return [_shown(principal) for principal in await services.service.everybody()]


@router.post("/identities/{principal_id}/disable", summary="Shut somebody out", responses={**NOT_FOUND})
async def disable_identity(principal_id: UUID, services: Services, caller: MayAdminister) -> Identity:
    """Let somebody do nothing more, for ever: within a second no token of theirs counts, nor on open WebSockets."""
    return _shown(await services.service.disable(principal_id, by=caller.name))


@router.post("/tokens", status_code=HTTPStatus.CREATED, summary="Make a token", responses={**TAKEN, **NOT_FOUND})
async def create_token(wanted: TokenRequest, services: Services, caller: MayAdminister) -> NewToken:
    """Make a token of a person or a service. This answer is the only one that ever holds it."""
    lasts = None if wanted.expires_in_seconds is None else timedelta(seconds=wanted.expires_in_seconds)
    issued = await services.service.issue(
        wanted.principal_id,
        by=caller.name,
        scopes=wanted.scopes,
        note=wanted.note,
        lasts=lasts,
        with_token=caller.token,
    )
    return _new(issued)


@router.post(
    "/tokens/claim",
    status_code=HTTPStatus.CREATED,
    summary="Claim the token that this is sent with",
    responses={**TAKEN, **NOT_FOUND},
)
async def claim_token(services: Services, caller: Anybody) -> NewToken:
    """Replace the token that this request is sent with by one that nobody else has seen; the old one counts no more.

    It works once. A token that another made lets its owner approve only once it is claimed.
    """
    if caller.token_id is None:
        raise Conflict("Nobody is asked for a token here, so there is none to claim.")
    return _new(await services.service.claim(caller.token_id))


@router.get("/tokens", dependencies=[ADMINISTER], summary="List tokens, newest first")
async def list_tokens(
    services: Services,
    principal_id: Annotated[UUID | None, Query(description="Only those of this identity.")] = None,
    limit: Annotated[Digits, Query(ge=1, le=1000)] = 200,
) -> list[Token]:
    """Return what is known of the tokens; the tokens themselves are nowhere."""
    found = await services.service.tokens(principal_id=principal_id, limit=limit)
    return [Token.model_validate(token) for token in found]


@router.post("/tokens/{token_id}/revoke", summary="Revoke a token", responses={**NOT_FOUND})
async def revoke_token(token_id: UUID, services: Services, caller: MayAdminister) -> Token:
    """Let a token count no more: within a second, on open WebSockets as well."""
    return Token.model_validate(await services.service.revoke(token_id, by=caller.name))


@router.post("/enrolments", status_code=HTTPStatus.CREATED, summary="Let an agent enrol", responses={**TAKEN})
async def create_enrolment(
    wanted: EnrolmentRequest, request: Request, services: Services, caller: MayAdminister
) -> Enrolment:
    """Give an agent its id, its pool and its pinned labels, and a token with which it enrols once.

    A second call, before it has, replaces the token.
    """
    lasts = timedelta(seconds=wanted.ttl_seconds)
    invited = await services.enrolment.invite(
        wanted.name, wanted.agent_type, labels=wanted.labels, lasts=lasts, by=caller.name
    )
    assert invited.issued.token.expires_at is not None
    return Enrolment(
        agent_id=invited.agent_id,
        agent_type=invited.agent_type,
        labels=dict(invited.labels),
        name=wanted.name,
        token=invited.issued.secret,
        expires_at=invited.issued.token.expires_at,
        routed=invited.agent_type in request.app.state.pools,
    )


@router.post("/enrol", summary="Become an agent", responses={**REFUSED})
async def enrol(sent: EnrolRequest, request: Request, services: Services) -> Enrolled:
    """Exchange an enrolment token for a credential of one's own. It works once, also for two at the same moment.

    The one endpoint below /api that needs no `Authorization`.
    """
    got = await services.enrolment.enrol(sent.token, address=address_of(request.scope))
    return Enrolled(
        agent_id=got.agent_id, agent_type=got.agent_type, token=got.secret, trusted_keys=list(got.trusted_keys)
    )


def _shown(principal: Principal) -> Identity:
    return Identity.model_validate(principal)


def _new(issued: Issued) -> NewToken:
    return NewToken(**dict(Token.model_validate(issued.token)), token=issued.secret)
